import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_entrodrop.commands.diagnose.curves import DiagnosedLog, read_curves
from lit_entrodrop.commands.diagnose.findings import conclude
from lit_entrodrop.commands.diagnose.logs import find_logs

STEPS, EPOCHS, EVERY = 40, 6, 20
RISING = 2 + 1.5 * np.exp(-np.arange(1, 13) / 2) + 0.03 * np.maximum(np.arange(1, 13) - 6, 0)
FALLING = 2 + 1.5 * np.exp(-np.arange(1, 13) / 2)


def history(
    stairs: float = 0.0, evaluations: Sequence[float] = RISING, name: str = "eval_loss"
) -> list[dict[str, Any]]:
    """A log of Transformers: training loss at every fourth step, evaluations twice an epoch."""
    scatter = 0.02 * np.random.default_rng(0).normal(size=STEPS * EPOCHS + 1)
    rows: list[dict[str, Any]] = []
    for step in range(4, STEPS * EPOCHS + 1, 4):
        loss = 4 - 0.002 * step - stairs * ((step - 1) // STEPS) + scatter[step]
        rows.append({"loss": loss, "epoch": step / STEPS, "step": step})
    for i, loss in enumerate(evaluations):
        step = EVERY * (i + 1)
        rows.append({name: loss, "epoch": step / STEPS, "step": step})
    return sorted(rows, key=lambda row: row["step"])


def diagnosed(folder: Path, rows: Sequence[dict[str, Any]], **options: Any) -> DiagnosedLog:
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows}))
    [read] = find_logs(path)
    return read_curves(read(), **options)


def actions(found: DiagnosedLog) -> str:
    return "\n".join(step.text for step in conclude(found).next_steps)


def test_overfitting_its_onset_and_stair_steps_are_found(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, history(stairs=0.2))
    conclusion = conclude(found)
    assert conclusion.headline == "The model overfits from epoch 3.5"
    assert "lowest at epoch 3 (step 120), 2.075, and is 2.184 at epoch 6" in conclusion.summary
    assert found.drops is not None
    assert found.drops.mean == pytest.approx(0.2, abs=0.03)
    assert "stair steps: at the start of each epoch it drops" in conclusion.summary
    assert "no losses of documents" in conclusion.summary
    assert "`num_train_epochs=3`" in actions(found)
    assert "`load_best_model_at_end=True`" in actions(found)
    assert "recipes/scarce.yaml" in conclusion.next_steps[-1].command


def test_a_checkpoint_of_the_best_step_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-120").mkdir()
    (tmp_path / "checkpoint-240").mkdir()
    found = diagnosed(tmp_path / "checkpoint-240", history())
    assert "the folder `checkpoint-120`" in actions(found)


def test_a_loss_that_still_falls_asks_for_more_training(tmp_path: Path) -> None:
    conclusion = conclude(found := diagnosed(tmp_path, history(evaluations=FALLING)))
    assert conclusion.headline.startswith("No overfitting so far")
    assert "no stair steps between epochs" in conclusion.summary
    assert "Train longer" in actions(found)


def test_a_loss_that_never_changes_is_no_falling_one(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, history(evaluations=[2.5] * 12))
    assert "lowest at the last of 12 evaluations: 2.500 at epoch 6" in conclude(found).summary
    assert "check that the learning rate is above 0" in actions(found)
    assert "Train longer" not in actions(found)


def test_few_evaluations_are_said_to_be_few(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, history(evaluations=[2.0, 1.8, 2.1]))
    assert conclude(found).headline == (
        "The validation loss rises from epoch 1.5, with too few evaluations to be sure"
    )
    assert "3 evaluations do not show how much they scatter" in conclude(found).summary
    assert "Evaluate more often" in actions(found)
    one = diagnosed(tmp_path, history(evaluations=[2.0]))
    assert conclude(one).headline == "Too early to judge: one evaluation so far"


def test_without_a_validation_loss_the_page_says_what_is_unknown(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, history(evaluations=[]))
    assert conclude(found).headline == "The training loss alone cannot show overfitting"
    assert '`eval_strategy="steps"`' in actions(found)
    stairs = diagnosed(tmp_path, history(stairs=0.2, evaluations=[]))
    assert conclude(stairs).headline.startswith("The model memorizes; without a validation loss")


def test_several_validation_sets_are_judged(tmp_path: Path) -> None:
    rows = history(name="eval_wiki_loss") + history(evaluations=FALLING, name="eval_code_loss")
    found = diagnosed(tmp_path, rows, validation="eval_wiki_loss")
    assert conclude(found).headline == "The model overfits from epoch 3.5"
    assert "By `eval_code_loss`: no overfitting so far" in conclude(found).summary


def test_losses_that_are_not_finite_are_counted_and_end_the_verdict(tmp_path: Path) -> None:
    rows = history()
    for row in rows:
        if row["step"] > 200:
            row |= {key: float("nan") for key in row if "loss" in key}
    found = diagnosed(tmp_path, rows)
    assert conclude(found).headline == "Training broke down: `loss` is not finite from step 204"
    assert "10 of 60 values of `loss` are not finite and are left out." in found.notes
    assert "Lower the learning rate" in actions(found)


def test_repeated_and_unsorted_steps_are_counted_and_the_last_is_used(tmp_path: Path) -> None:
    rows = history()
    first = [{**row, **{key: 9.0 for key in row if "loss" in key}} for row in rows[30:40]]
    found = diagnosed(tmp_path, [*rows[:30], *first, *rows[30:]])
    assert any("not in the order of their steps" in note for note in found.notes)
    assert any("repeated later for the same step" in note for note in found.notes)
    assert found.training.losses.max() < 9
    assert found.validations[0].losses.tolist() == pytest.approx(RISING.tolist())


def test_losses_logged_once_an_epoch_show_no_stairs_and_say_so(tmp_path: Path) -> None:
    rows = [row for row in history() if "loss" not in row or row["step"] % STEPS == 0]
    assert "each epoch needs 8 values" in conclude(diagnosed(tmp_path, rows)).summary
