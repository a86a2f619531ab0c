"""Runs of the program that are really killed, resumed and compared."""

import re
from functools import partial
from pathlib import Path

import pytest

from lit_entrodrop.commands.verify_resume.killed_runs import run_program, verify_resume
from lit_entrodrop.commands.verify_resume.short_run import KillSchedule
from tests.helpers.processes import run_cli_group
from tests.helpers.tiny import Tiny

ENTRODROP = "--model.regularizers+=regularizers.EntroDrop"


def test_equal(tiny: Tiny, temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.folder / "run"
    own = ["--trainer.default_root_dir", str(run), "--trainer.accumulate_grad_batches=2"]
    compared = verify_resume([*tiny.config(), ENTRODROP, *own], KillSchedule(), run_cli_group)
    assert not compared.differences
    # Two moments and a step of each of 20 weights, the weights, entropies of two splits.
    assert compared.tensors >= 20 * 4 + 2
    assert compared.rows == 1 + 8
    output = capsys.readouterr().out
    phases = re.findall(r"^\d/4 .*(?= … \d+\.\d s$)", output, re.MULTILINE)
    assert phases == [
        "1/4 uninterrupted",
        "2/4 from the start, killed after step 3",
        "3/4 resumed from step 2 of epoch 1, killed after step 5",
        "4/4 resumed from step 4 of epoch 1",
    ]
    assert not run.exists()
    assert not list(temporary.iterdir())


def test_equal_on_two_ranks_that_shard(tiny: Tiny) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=fsdp2"]
    run = partial(run_cli_group, world_size=2)
    compared = verify_resume([*tiny.config(), ENTRODROP, *ranks], KillSchedule(), run)
    assert not compared.differences
    assert compared.tensors >= 20 * 4 + 2
    assert compared.rows == 1 + 8


def test_error_of_a_run_is_shown(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    missing = ["--data.corpus", str(tiny.folder / "missing.txt")]
    with pytest.raises(ValueError, match=r"1/4 uninterrupted: expected `fit` to succeed, but .* 1"):
        verify_resume([*tiny.config(), *missing], KillSchedule(), run_cli_group)
    assert re.search(r"error: .*missing\.txt", capfd.readouterr().err)


def test_corpus_without_enough_steps_is_rejected(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"data: expected two epochs of 4 steps, got [1-7] steps"):
        verify_resume([*tiny.config(), "--data.batch_size=16"], KillSchedule(), run_cli_group)


def test_program_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert run_program(["export", "--no_such_option"], log) == 2
    assert "lit-entrodrop export: error" in log.read_text()
