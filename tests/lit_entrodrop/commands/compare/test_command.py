import os
import re
from pathlib import Path

import pytest

from lit_entrodrop.cli.main import main
from lit_entrodrop.runs.locking import lock
from tests.helpers.comparing import compared, content, write_config
from tests.helpers.tiny import Tiny


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    assert not ended.value.code
    told = capsys.readouterr().out
    for words in ("--runs", "--devices", "configs/comparisons", "comparison.json", "validation"):
        assert words in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "no.yaml"], "config: expected a file, found no no.yaml"),
        (["--config", "c.yaml", "--devices", "0,0"], "devices: expected different GPUs"),
        (["--config", "c.yaml", "--parallel", "0"], "parallel: expected 1 or more, got 0"),
        (
            ["--config", "c.yaml", "--baseline", "x"],
            "expected --runs with these options, got --config",
        ),
        (["--config", "c.yaml", "--ladder", "half"], "ladder: expected shares, got half"),
        (
            ["--config", "c.yaml", "--ladder", "0.5"],
            "ladder: expected two or more different shares",
        ),
        (
            ["--config", "c.yaml", "--import", "no.json"],
            "import: expected a file, found no no.json",
        ),
        (
            ["--runs", "a", "b", "--import", "c.json"],
            "base, arms, ladder, import: expected --config",
        ),
        (["--runs", "no", "such"], "runs: expected folders that `fit` wrote"),
    ],
)
def test_wrong_arguments_are_an_error_of_one_line(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tiny.folder)
    write_config(tiny.folder / "c.yaml", content(tiny))
    with pytest.raises(SystemExit, match=re.escape(message)):
        main(["compare", *words])
    assert not (tiny.folder / "runs").exists()


def test_one_source_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare"])
    assert "one of the arguments --config --runs is required" in capsys.readouterr().err


def test_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(SystemExit, match="start it without torchrun"):
        main(["compare", "--config", "comparisons/quickstart.yaml"])


def test_output_of_a_comparison_at_work_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    held = lock(tmp_path / "lock")
    assert held is not None
    used = rf"no `compare` uses, got .*: process {os.getpid()} on \S+ uses it: wait"
    with held, pytest.raises(ValueError, match=used):
        compared(tiny, tmp_path, arms={"plain": [], "other": [{"model": {"reference": None}}]})


def test_run_of_no_comparison_is_not_written_over(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tmp_path / "plain" / "seed=0" / "checkpoints" / "step=5.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("of another run")
    with pytest.raises(ValueError, match="contains a run that belongs to no comparison"):
        compared(tiny, tmp_path, arms={"plain": [], "other": [{"model": {"reference": None}}]})
    assert checkpoint.read_text() == "of another run"
