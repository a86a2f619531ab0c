"""Runs of the program that are really killed, resumed and compared."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.verify_resume.command import (
    Plan,
    command,
    run_program,
    short_config,
    verify_resume,
)
from tests.helpers.processes import run_cli_group
from tests.helpers.tiny import Tiny

ENTRODROP = "--model.regularizers+=regularizers.EntroDrop"
MOODY = "--model.regularizers+=tests.helpers.plugins.Moody"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary ones are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_equal(tiny: Tiny, temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.folder / "run"
    own = ["--trainer.default_root_dir", str(run), "--trainer.accumulate_grad_batches=2"]
    compared = verify_resume([*tiny.config(), ENTRODROP, *own], Plan(), run_cli_group)
    assert not compared.differences
    # Two moments and a step of each of 20 weights, the weights, entropies of two splits.
    assert compared.tensors >= 20 * 4 + 2
    assert compared.rows == 1 + 8
    told = capsys.readouterr().out
    phases = re.findall(r"^\d/4 .*(?= … \d+\.\d s$)", told, re.MULTILINE)
    assert phases == [
        "1/4 uninterrupted",
        "2/4 from the start, killed after step 3",
        "3/4 resumed from step 2 of epoch 1, killed after step 5",
        "4/4 resumed from step 4 of epoch 1",
    ]
    assert not run.exists()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_equal_on_two_ranks(tiny: Tiny, strategy: str) -> None:
    ranks = ["--trainer.devices=2", f"--trainer.strategy={strategy}"]
    run = partial(run_cli_group, world_size=2)
    compared = verify_resume([*tiny.config(), ENTRODROP, *ranks], Plan(), run)
    assert not compared.differences
    assert compared.tensors >= 20 * 4 + 2
    assert compared.rows == 1 + 8


def test_command_tells_what_it_has_compared(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    command([*tiny.config(), "--steps=12", "--data.batch_size=3"], run_cli_group)
    *_, third, _, verdict = capsys.readouterr().out.splitlines()
    assert "resumed from step 4 of epoch 1, killed after step 7" in third
    assert re.fullmatch(
        r"equal: \d{2,} tensors and \d{2,} values of the last checkpoint, "
        r"13 rows of metrics\.csv",
        verdict,
    )


def test_what_cannot_be_resumed_is_found(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command([*tiny.config(), MOODY, "--steps", "8"], run_cli_group)
    assert ended.value.code == 1
    *_, first, count = capsys.readouterr().out.splitlines()
    # The first step that the resumed run has done again.
    assert re.fullmatch(
        r"different: metrics\.csv, step 3, train/loss: "
        r"[\d.]+ uninterrupted, [\d.]+ resumed; [\d.e-]+ apart",
        first,
    )
    assert re.fullmatch(
        r"the first of \d{2,} differences among \d+ tensors and \d+ values of the last checkpoint, "
        r"9 rows of metrics\.csv",
        count,
    )


def test_error_of_a_run_is_shown(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    missing = ["--data.corpus", str(tiny.folder / "missing.txt")]
    with pytest.raises(ValueError, match=r"1/4 uninterrupted: expected `fit` to succeed, but .* 1"):
        verify_resume([*tiny.config(), *missing], Plan(), run_cli_group)
    assert re.search(r"error: .*missing\.txt", capfd.readouterr().err)


def test_corpus_without_enough_steps_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"data: expected two epochs of 4 steps, got [1-7] steps"):
        verify_resume([*tiny.config(), "--data.batch_size=16"], Plan(), run_cli_group)


def test_wrong_argument_ends_it_at_once(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify-resume", *tiny.config(), "--trainer.max_stepz=3"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "max_stepz" in said.err
    assert "1/4" not in said.out


@pytest.mark.parametrize("steps", ["6", "10", "0"])
def test_steps_that_make_no_two_epochs_are_refused(steps: str) -> None:
    with pytest.raises(SystemExit, match=f"steps: expected 8, 12, 16 or so.*, got {steps}"):
        main(["verify-resume", "--steps", steps])


def test_ranks_of_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit, match="start it without torchrun"):
        main(["verify-resume"])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify-resume", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "[--steps STEPS] [any argument of fit ...]" in told
    assert "Takes all arguments of `fit`" in told


def trainer(**settings: Any) -> dict[str, Any]:
    defaults = {
        "max_steps": -1,
        "accumulate_grad_batches": 3,
        "callbacks": None,
        "limit_val_batches": None,
    }
    config = {"trainer": {**defaults, **settings}, "ckpt_path": "last", "model": {"seed": 1}}
    config["checkpoints"] = {"keep_last": 3}
    short = short_config(config, Plan(12))
    assert short["ckpt_path"] is None
    assert short["model"] == {"seed": 1}
    bounded: dict[str, Any] = short["trainer"]
    return bounded


def test_steps_bound_the_short_run_only_where_they_bound_the_real_one() -> None:
    assert (trainer()["max_steps"], trainer()["max_epochs"]) == (-1, 2)
    assert trainer()["limit_train_batches"] == 6 * 3
    assert trainer(max_steps=1000)["max_steps"] == 12


def test_callbacks_stay_but_keep_out_of_other_folders() -> None:
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    saving = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "runs/mine", "every": 3}}
    first, second = trainer(callbacks=[stopping, saving])["callbacks"]
    assert first == stopping
    assert second == {**saving, "init_args": {"dirpath": None, "every": 3}}
    assert trainer(callbacks=stopping)["callbacks"] == [stopping]


def test_validation_is_short_or_stays_off() -> None:
    assert trainer()["limit_val_batches"] == 2
    assert trainer(limit_val_batches=0)["limit_val_batches"] == 0


def test_program_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert run_program(["export", "--no_such_option"], log) == 2
    assert "lit-entrodrop export: error" in log.read_text()
