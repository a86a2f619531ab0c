import re

import pytest

from lit_entrodrop.cli.main import main as run_cli
from lit_entrodrop.commands.verify_resume.command import main
from tests.helpers.processes import run_cli_group
from tests.helpers.tiny import Tiny

MOODY = "--model.regularizers+=tests.helpers.plugins.Moody"


def test_command_reports_what_it_compared(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    main([*tiny.config(), "--steps=12", "--data.batch_size=3"], run_cli_group)
    *_, third, _, verdict = capsys.readouterr().out.splitlines()
    assert "resumed from step 4 of epoch 1, killed after step 7" in third
    assert re.fullmatch(
        r"equal: \d{2,} tensors and \d{2,} values of the last checkpoint, "
        r"13 rows of metrics\.csv",
        verdict,
    )


def test_state_that_cannot_be_resumed_is_found(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*tiny.config(), MOODY, "--steps", "8"], run_cli_group)
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


def test_wrong_argument_ends_it_at_once(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_cli(["verify-resume", *tiny.config(), "--trainer.max_stepz=3"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "max_stepz" in printed.err
    assert "1/4" not in printed.out


@pytest.mark.parametrize("steps", ["6", "10", "0"])
def test_steps_that_make_no_two_epochs_are_rejected(steps: str) -> None:
    with pytest.raises(
        SystemExit, match=f"steps: expected a multiple of 4 of at least 8, got {steps}"
    ):
        run_cli(["verify-resume", "--steps", steps])


def test_ranks_of_torchrun_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit, match="start it without torchrun"):
        run_cli(["verify-resume"])


def test_help_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_cli(["verify-resume", "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "[--steps STEPS] [any argument of fit ...]" in output
    assert "Takes all arguments of `fit`" in output
