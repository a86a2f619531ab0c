import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lit_entrodrop.commands.compare.measuring.measures import (
    are_tested,
    checkpoint_steps,
    fingerprints,
    measure,
)
from lit_entrodrop.runs.evaluations import SHARED, Evaluation, evaluation_path, write_run_info
from tests.helpers.tiny import Tiny

LOSSES = {0: 3.0, 10: 4.0, 20: 3.5, 30: 3.9}


def write_run(folder: Path, **columns: Any) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {
            "step": step,
            "epoch": None if step == 0 else step / 10 - 1,
            "val/loss": loss,
            "val/loss_high_entropy": loss + 1,
            "val/loss_low_entropy": loss - 1,
            **columns,
        }
        for step, loss in LOSSES.items()
    ]
    rows += [{"step": 5, "epoch": 0, "train/loss": 4.0, "entro_drop/drop_rate": 0.1}]
    rows += [{"step": 15, "epoch": 1, "train/loss": 4.0, "entro_drop/drop_rate": 0.3}]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    return folder


def evaluation(step: int, level: float) -> Evaluation:
    nll = np.array([[level * 4, level, level * 3], [level * 2, level, level]])
    tokens = np.array([[2, 1, 1], [1, 1, 0]])
    passage = np.zeros((1, 3), "float32")
    histogram = np.ones(2, int), np.arange(3.0)
    return Evaluation(step, step // 10, nll, tokens, *histogram, passage, passage)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_best_is_after_training_began(run: Path) -> None:
    assert checkpoint_steps(run) == {"best": 20, "last": 30}
    result = measure(run)
    assert result.values["best/loss"] == result.values["best/score"] == 3.5
    assert result.values["best_epoch"] == 2
    assert result.values["last/loss"] == 3.9
    assert result.total_steps == 30


@pytest.mark.parametrize(("mode", "step", "value"), [("min", 10, 2.0), ("max", 30, 4.0)])
def test_evaluation_set_is_measured_and_selects(
    run: Path, mode: str, step: int, value: float
) -> None:
    metrics = pd.read_csv(run / "metrics.csv")
    metrics["exam/loss"] = metrics["step"].map({0: 9.0, 10: 2.0, 20: 3.0, 30: 4.0})
    metrics.to_csv(run / "metrics.csv", index=False)
    settings = {"checkpoints": {"monitor": "exam/loss", "mode": mode}}
    (run / "config.yaml").write_text(json.dumps(settings))
    evaluation(step, 1.5).save(evaluation_path(run, step, evaluation_set="exam"))
    assert checkpoint_steps(run)["best"] == step
    result = measure(run)
    assert result.selected_by == "exam/loss"
    assert result.values["best/exam/loss"] == abs(result.values["best/score"]) == value
    assert result.values["best/score"] == (value if mode == "min" else -value)
    assert result.values["best/loss"] == LOSSES[step]
    assert result.values["last/exam/loss"] == 4.0
    assert result.documents["best/exam/loss"][0].tolist() == [6.0, 3.0]
    assert result.documents["best/exam/loss"][1].tolist() == [2, 1]
    settings["checkpoints"]["monitor"] = "notes/loss"
    (run / "config.yaml").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"expected notes/loss, which checkpoints\.monitor names"):
        measure(run)


def test_evaluations_within_an_epoch_are_parts_of_a_pass(tmp_path: Path) -> None:
    rows = {0: 3.0, 4: 2.5, 8: 2.0, 12: 2.1, 16: 2.2}
    lines = [
        f"{step},{'' if step == 0 else (step - 1) // 12},{loss}" for step, loss in rows.items()
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,epoch,val/loss", *lines, ""]))
    assert measure(tmp_path).values["best_epoch"] == pytest.approx(2 / 3)
    # The run knows better: it has stopped short of the end of the epoch.
    replace(evaluation(8, 1.0), epoch=0.5).save(evaluation_path(tmp_path, 8))
    assert measure(tmp_path).values["best_epoch"] == 0.5


def test_step_that_was_repeated_is_timed_once(run: Path) -> None:
    lines = ["step,seconds_per_step", "10,0.5", "20,9", "20,0.3", "30,0.4"]
    (run / "throughput.csv").write_text("\n".join([*lines, ""]))
    assert measure(run).values["seconds_per_step"] == 0.4


def test_last_checkpoint_may_come_after_the_last_validation(run: Path) -> None:
    with (run / "metrics.csv").open("a") as file:
        columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
        file.write(",".join({"step": "34", "epoch": "3"}.get(name, "") for name in columns) + "\n")
    assert checkpoint_steps(run) == {"best": 20, "last": 34}
    assert measure(run).values["last/loss"] == 3.9


def test_buckets_stand_in_the_order_of_their_entropy(run: Path) -> None:
    names = [name for name in measure(run).values if name.startswith("best/loss")]
    assert names == ["best/loss", "best/loss_low_entropy", "best/loss_high_entropy"]


def test_buckets_with_numbers_meet_their_own_documents(tmp_path: Path) -> None:
    names = [f"bucket_{number}" for number in range(1, 12)]
    columns = {f"val/loss_{name}_entropy": float(i) for i, name in enumerate(names)}
    pd.DataFrame({"step": [10], "epoch": [0], "val/loss": [5.0], **columns}).to_csv(
        tmp_path / "metrics.csv", index=False
    )
    sums = np.array([[5.0 * 11, *map(float, range(11))]])
    tokens = np.array([[11] + [1] * 11])
    replace(evaluation(10, 1.0), nll=sums, tokens=tokens).save(evaluation_path(tmp_path, 10))
    result = measure(tmp_path)
    for number, name in enumerate(names):
        metric = f"best/loss_{name}_entropy"
        assert result.values[metric] == number
        assert result.documents[metric][0].tolist() == [number]


def test_bucket_without_tokens_takes_no_documents_from_others(run: Path) -> None:
    metrics = pd.read_csv(run / "metrics.csv").drop(columns="val/loss_low_entropy")
    metrics.to_csv(run / "metrics.csv", index=False)
    write_run_info(run, {**dict.fromkeys(SHARED), "buckets": {"names": ["low", "high"]}})
    for step in LOSSES:
        evaluation(step, 1.0).save(evaluation_path(run, step))
    result = measure(run)
    assert "best/loss_low_entropy" not in result.values
    assert result.documents["best/loss_high_entropy"][0].tolist() == [3.0, 1.0]


def test_steps_are_those_of_the_checkpoints(run: Path, tiny_module: Tiny) -> None:
    folder = run / "checkpoints"
    folder.mkdir()
    for name, kept in (("best", "step=10.ckpt"), ("last", "step=31-v2.ckpt")):
        (folder / kept).touch()
        (folder / f"{name}.ckpt").symlink_to(kept)
    # That of the lowest loss, step 20, was not kept.
    assert checkpoint_steps(run) == {"best": 10, "last": 31}
    # A copy that has lost a link and followed another.
    for name in ("best.ckpt", "last.ckpt", "step=10.ckpt"):
        (folder / name).unlink()
    trained = tiny_module.run("fit", "--trainer.max_steps=2", root="trained")
    shutil.copy(trained / "checkpoints" / "last.ckpt", folder / "best.ckpt")
    assert checkpoint_steps(run) == {"best": 2, "last": 31}


@pytest.mark.parametrize("content", ["", "step\n", "step,seconds_per_step\n10,fast\n"])
def test_times_that_cannot_be_read_are_left_out(run: Path, content: str) -> None:
    (run / "throughput.csv").write_text(content)
    assert "seconds_per_step" not in measure(run).values


@pytest.mark.parametrize("content", ["{}", "[]", '{"buckets": [], "fingerprints": 3}', "{"])
def test_run_without_information_is_measured(run: Path, content: str) -> None:
    (run / "run.json").write_text(content)
    assert measure(run).values["best/loss_low_entropy"] == 2.5
    assert fingerprints(run) == {}


def test_what_was_not_measured_is_left_out(run: Path) -> None:
    values = measure(run).values
    assert values["drop_rate"] == pytest.approx(0.2)
    assert not {"seconds_per_step", "last/gap", "last/forgetting"} & values.keys()


def test_what_stands_beside_losses_is_read(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"gap/loss": 0.5, "clean_train/loss": 3.1, "forgetting/loss": 2.0}
    run = write_run(tmp_path / "run", **columns)
    (run / "throughput.csv").write_text("step,seconds_per_step\n10,0.5\n20,0.3\n30,0.4\n")
    values = measure(run).values
    assert (values["best/gap"], values["last/clean_train_loss"]) == (0.5, 3.1)
    # By how much it rose since before training.
    assert values["last/forgetting"] == 0
    assert values["seconds_per_step"] == 0.4


def test_losses_of_the_test_split_are_over_tokens(run: Path) -> None:
    write_run_info(run, {**dict.fromkeys(SHARED), "buckets": {"names": ["low", "high"]}})
    assert not are_tested(run)
    for step, level in ((20, 1.0), (30, 2.0)):
        evaluation(step, level).save(evaluation_path(run, step, "test"))
    assert are_tested(run)
    result = measure(run, "test")
    assert result.values["best/loss"] == pytest.approx(6 / 3)
    assert result.values["last/loss_low_entropy"] == pytest.approx(4 / 2)
    assert result.values["last/loss_high_entropy"] == pytest.approx(8 / 1)
    assert result.values["best/score"] == 3.5
    nll, tokens = result.documents["best/loss_high_entropy"]
    assert (nll.tolist(), tokens.tolist()) == ([3.0, 1.0], [1, 0])


def test_run_without_validation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,3.0\n")
    with pytest.raises(ValueError, match="expected a validation loss after training"):
        measure(tmp_path)
