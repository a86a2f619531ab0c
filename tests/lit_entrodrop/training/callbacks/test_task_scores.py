"""One fit on pairs whose answer is learnable, and what must hold of its scores."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runs.task_scores import read_task_scores, task_scores_path
from lit_entrodrop.training.callbacks import Checkpoints, TaskScores
from regularizers import EntroDrop
from tests.helpers.tiny import WORDS, Tiny

EXACT_MATCH = "task/exact_match"
PAIRS = [
    {"prompt": f"{first} and {second} of the", "completion": answer}
    for first, answer in (("fever", " heart"), ("pain", " weeks"))
    for second in WORDS
]


@pytest.fixture(scope="module")
def exam(tiny_module: Tiny) -> Path:
    corpus = tiny_module.folder / "pairs.jsonl"
    corpus.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    path = tiny_module.folder / "exam.jsonl"
    rows = [{"prompt": p["prompt"], "answer": p["completion"].strip()} for p in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fit(tiny: Tiny, name: str, *callbacks: Any, resume: bool = False, **settings: Any) -> Any:
    folder = tiny.folder / name
    trainer = tiny.trainer(
        callbacks=[*callbacks, Checkpoints(**settings.pop("checkpoints", {}))],
        enable_checkpointing=True,
        default_root_dir=folder,
        logger=MetricsFile(folder),
        **{"num_sanity_val_steps": -1, "max_epochs": 4, **settings},
    )
    data = tiny.data(corpus=str(tiny.folder / "pairs.jsonl"), block_size=32)
    last = folder / "checkpoints" / "last.ckpt" if resume else None
    module = tiny.module(EntroDrop(curriculum=0.2))
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    return trainer


def logged(folder: Path) -> dict[int, float]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): float(row[EXACT_MATCH]) for row in rows if row.get(EXACT_MATCH)}


def scores(folder: Path) -> dict[int, Sequence[Any]]:
    return {
        step: read_task_scores(task_scores_path(folder, step)) for step in sorted(logged(folder))
    }


class Killed(L.Callback):
    """Ends a run in its third epoch, after its validation."""

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


@pytest.fixture(scope="module")
def run(tiny_module: Tiny, exam: Path) -> Any:
    return fit(tiny_module, "run", TaskScores(str(exam), max_new_tokens=4))


def test_scores_rise_from_the_initial_model_on(run: Any, tiny_module: Tiny) -> None:
    curve = logged(tiny_module.folder / "run")
    assert list(curve) == [0, 2, 4, 6, 8]
    assert curve[0] < 0.1
    assert curve[8] > 0.9
    assert run.callback_metrics[EXACT_MATCH].item() == pytest.approx(curve[8])
    for step, items in scores(tiny_module.folder / "run").items():
        assert len(items) == len(PAIRS)
        assert sum(item.score for item in items) / len(items) == pytest.approx(curve[step])
        right = [item.output.strip() in item.answers for item in items]
        assert [item.score for item in items] == right


def test_scoring_leaves_training_as_it_is(run: Any, tiny_module: Tiny) -> None:
    without = fit(tiny_module, "without")
    pairs = zip(run.model.parameters(), without.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert run.callback_metrics["val/loss"] == without.callback_metrics["val/loss"]


def test_a_resumed_run_has_the_scores_of_a_whole_one(
    run: Any, tiny_module: Tiny, exam: Path
) -> None:
    task = TaskScores(str(exam), max_new_tokens=4)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tiny_module, "resumed", task, Killed())
    later = task_scores_path(tiny_module.folder / "resumed", 6)
    assert later.exists(), "a score after the last checkpoint"
    later.write_text("of a step that the checkpoint lacks")
    fit(tiny_module, "resumed", TaskScores(str(exam), max_new_tokens=4), resume=True)
    whole = tiny_module.folder / "run"
    assert logged(tiny_module.folder / "resumed") == logged(whole)
    assert scores(tiny_module.folder / "resumed") == scores(whole)


def test_scores_stop_a_run_and_select_its_checkpoint(tiny_module: Tiny, exam: Path) -> None:
    stopping = EarlyStopping(EXACT_MATCH, mode="max", stopping_threshold=0.1, strict=True)
    best = {"checkpoints": {"monitor": EXACT_MATCH, "mode": "max"}}
    task = TaskScores(str(exam), metric="exact_match", max_new_tokens=4, max_items=9, batch_size=4)
    trainer = fit(tiny_module, "stopped", task, stopping, max_epochs=8, **best)
    curve = logged(tiny_module.folder / "stopped")
    assert trainer.current_epoch < 8
    assert [step for step, value in curve.items() if value > 0.1] == [list(curve)[-1]]
    best_path = (tiny_module.folder / "stopped" / "checkpoints" / "best.ckpt").resolve()
    assert best_path.name == f"step={max(curve, key=lambda step: (curve[step], -step))}.ckpt"


def test_every_second_epoch_and_the_last(tiny_module: Tiny, exam: Path) -> None:
    task = TaskScores(str(exam), max_items=2, max_new_tokens=2, every_n_epochs=2)
    fit(tiny_module, "second", task, max_epochs=3, val_check_interval=0.5)
    assert list(logged(tiny_module.folder / "second")) == [0, 4, 6]


def test_a_checkpoint_is_scored_as_during_training(run: Any, tiny_module: Tiny) -> None:
    folder = tiny_module.folder / "run"
    checkpoint, data = folder / "checkpoints" / "best.ckpt", run.datamodule
    for evaluate, split in ((run.validate, "validation"), (run.test, "test")):
        data = tiny_module.data(corpus=str(tiny_module.folder / "pairs.jsonl"), test=0.1)
        [*_, metrics] = evaluate(
            tiny_module.module(), data, ckpt_path=checkpoint, verbose=False, weights_only=True
        )
        assert metrics[EXACT_MATCH] == pytest.approx(logged(folder)[8])
        assert read_task_scores(task_scores_path(folder, 8, split)) == scores(folder)[8]


@pytest.mark.parametrize(
    ("settings", "monitor", "message"),
    [
        ({"limit_val_batches": 0}, {}, r"monitors\.task: expected validation"),
        (
            {},
            {"mode": "min"},
            "EarlyStopping.mode: expected max, because a higher task",
        ),
        ({"val_check_interval": 0.5}, {"mode": "max"}, "expected a score at each validation"),
    ],
)
def test_what_no_score_can_serve_is_refused_before_training(
    tiny: Tiny, exam: Path, settings: dict[str, Any], monitor: dict[str, Any], message: str
) -> None:
    callbacks = [TaskScores(str(exam)), *([EarlyStopping(EXACT_MATCH, **monitor)] * bool(monitor))]
    trainer = tiny.trainer(callbacks=callbacks, **settings)
    with pytest.raises(ValueError, match=message):
        trainer.fit(tiny.module(), datamodule=tiny.data())
