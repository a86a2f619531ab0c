import json
from pathlib import Path

import pytest

from lit_entrodrop.commands.diagnose.command import main
from tests.lit_entrodrop.commands.diagnose.test_findings import FALLING, history


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, rows in (("a", history(stairs=0.2)), ("b", history(evaluations=FALLING))):
        (tmp_path / name).mkdir()
        content = json.dumps({"log_history": rows})
        (tmp_path / name / "trainer_state.json").write_text(content)
    return tmp_path


def test_one_log_is_explained_in_sentences(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(runs / "a")])
    text = " ".join(capsys.readouterr().out.split())
    assert "The model overfits from epoch 3.5." in text
    assert "What to do next 1. Use the weights of epoch 3 (step 120)." in text


def test_several_logs_get_a_line_each(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(runs)])
    first, second = capsys.readouterr().out.splitlines()
    assert "a/trainer_state.json: The model overfits from epoch 3.5. Lowest 2.075" in first
    assert "b/trainer_state.json: No overfitting so far" in second


def test_a_log_that_cannot_be_read_is_left_out_with_its_reason(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "a" / "trainer_state.json").write_text("{")
    main([str(runs)])
    out = capsys.readouterr().out
    assert "No overfitting so far" in out
    assert "Left out: " in out
    assert "got text that is not JSON" in out
    with pytest.raises(ValueError, match="got text that is not JSON"):
        main([str(runs / "a")])


def test_a_file_that_raises_is_left_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "a" / "trainer_state.json").unlink()
    # Not even root can read these.
    (runs / "a" / "trainer_state.json").symlink_to("/proc/self/mem")
    main([str(runs)])
    out = capsys.readouterr().out
    assert "No overfitting so far" in out
    assert "Left out: [Errno" in out


def test_an_impossible_length_of_an_epoch_is_an_error(runs: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(runs / "a"), "--steps_per_epoch", "0"])
