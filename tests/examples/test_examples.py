"""The examples run offline, each in its own process."""

import re
import runpy
import sys
from math import log
from pathlib import Path

import pytest

from lit_entrodrop.evaluation.task.items import read_items
from lit_entrodrop.evaluation.task.settings import TaskSettings
from tests.helpers.processes import run_forked

ROOT = Path(__file__).parents[2]
# "loss 4.746" of the bare loop, "'loss': '4.764'" of the Trainer.
NUMBER = r"\W+(\d+(?:\.\d+)?)"


def run_example(name: str, folder: Path) -> str:
    path = str(ROOT / "examples" / name)
    done = run_forked(runpy.run_path, path, None, "__main__", cwd=folder)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", ["bare_pytorch.py", "hf_trainer.py"])
def test_loss_falls_while_tokens_are_dropped(name: str, tmp_path: Path) -> None:
    printed = run_example(name, tmp_path)
    losses = [float(loss) for loss in re.findall(rf"(?<!_)loss{NUMBER}", printed)]
    drop_rates = [float(rate) for rate in re.findall(rf"(?<!dropout/)drop.rate{NUMBER}", printed)]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 1.0
    assert drop_rates[0] == 0.0, "entropies are unknown in the first epoch"
    assert 0.15 < drop_rates[7] < 0.23
    assert list(tmp_path.iterdir()) == [], "an example left files behind"


@pytest.mark.parametrize("name", ["bare_pytorch.py", "hf_trainer.py"])
def test_short_and_of_few_dependencies(name: str) -> None:
    source = (ROOT / "examples" / name).read_text()
    assert len(source.splitlines()) < 80
    imported = re.findall(r"^(?:from|import) ([a-z_]+)", source, re.MULTILINE)
    foreign = {package for package in imported if package not in sys.stdlib_module_names}
    assert foreign == {"regularizers", "torch", "transformers"}


def test_fused_head_learns(tmp_path: Path) -> None:
    printed = run_example("fused_head.py", tmp_path)
    losses = [float(loss) for loss in re.findall(rf"loss{NUMBER}", printed)]
    entropies = [float(entropy) for entropy in re.findall(rf"entropy{NUMBER}", printed)]
    assert len(losses) == len(entropies) == 20
    assert losses[0] == pytest.approx(log(32768), abs=0.3)
    assert losses[-1] < losses[0] - 1.0
    assert entropies[-1] < entropies[0]


def test_exam_asks_for_terms_that_are_not_in_the_training_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["medical_exam.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "medical_exam.py"), run_name="__main__")
    training = (tmp_path / "train.jsonl").read_text(encoding="utf-8")
    task = TaskSettings(str(tmp_path / "exam.jsonl"), metric="rouge_l")
    items = read_items(task)
    assert len(items) == task.max_items == 200
    assert not [item for item in items if item.answers[0].strip() in training]
