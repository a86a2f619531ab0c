from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from lit_entrodrop.cli import run_lightning
from lit_entrodrop.quickstart import ARMS, free_folder, quickstart


@pytest.fixture
def less_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the quickstart take a third of its text, and tell long paths in one line."""
    less = ["--data.max_train_tokens=10000", "--data.validation=0.005"]
    monkeypatch.setattr(
        "lit_entrodrop.quickstart.run_lightning", lambda words: run_lightning([*words, *less])
    )
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.usefixtures("less_text")
def test_quickstart_compares_three_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart(str(tmp_path / "quickstart"), epochs=1)
    folder = tmp_path / "quickstart"
    summary = pd.read_csv(folder / "summary.csv", index_col=0)
    assert list(summary.index) == list(ARMS)
    before = 5.77  # of the bundled model on medical text
    assert (summary["val/loss last"] < before - 0.5).all()
    assert (summary["val/loss_low_entropy last"] < summary["val/loss_high_entropy last"]).all()
    assert summary["drop_rate"].isna().tolist() == [True, False, False]
    assert (folder / "curves.png").stat().st_size > 10_000
    model = AutoModelForCausalLM.from_pretrained(folder / "best_model")
    assert model.num_parameters() == 2_114_880
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*ARMS, "curves.png", "best_model"])


def test_a_second_quickstart_gets_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert free_folder(tmp_path / "runs") == tmp_path / "runs-2"
