"""A run with the average of its weights: evaluated, saved, chosen, and never in the way."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from safetensors.torch import load_file

from lit_entrodrop.commands.compare.measuring.measures import measure
from lit_entrodrop.commands.export import export
from lit_entrodrop.commands.report.records.run_record import read_run
from lit_entrodrop.commands.report.run_sections.conclusion import on_average
from lit_entrodrop.runs.checkpoints.averages import AVERAGE, choose_weights
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.criterion import read_criterion
from lit_entrodrop.runs.evaluations import Evaluation, evaluation_path
from lit_entrodrop.runs.metrics_file import evaluation_sets, read_metrics
from lit_entrodrop.training.averaging.averaging import (
    check_optimizer_averages_nothing,
    check_optimizer_restores_averages,
)
from lit_entrodrop.training.averaging.settings import Average, check_same_average
from lit_entrodrop.training.preflight.config import check_average, check_callbacks
from tests.helpers.runs import validation_loss
from tests.helpers.tiny import Tiny

SETTINGS = [
    "--data.test=0.1",
    "--trainer.max_epochs=3",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.num_sanity_val_steps=-1",
    "--model.lm.dropout={attention: 0.2, hidden: 0.1, embedding: 0.1}",
]
AVERAGED = "--model.average={kind: swa, start: 0.5, every: 2}"


@pytest.fixture(scope="module")
def runs(tiny_module: Tiny) -> tuple[Path, Path]:
    """The same run without and with an average."""
    plain = tiny_module.run("fit", *SETTINGS, root="plain")
    return plain, tiny_module.run("fit", *SETTINGS, AVERAGED, root="averaged")


def test_training_and_raw_metrics_are_the_same_to_the_bit(runs: tuple[Path, Path]) -> None:
    plain, averaged = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in runs)
    assert all(torch.equal(averaged["state_dict"][n], w) for n, w in plain["state_dict"].items())
    before, after = (read_metrics(run) for run in runs)
    assert before.equals(after[before.columns])


def test_average_is_evaluated_beside_the_weights(runs: tuple[Path, Path]) -> None:
    run = runs[1]
    metrics = read_metrics(run)
    rows = metrics.dropna(subset=["val/loss"])
    pairs = {name: f"{name.partition('/')[0]}_average/{name.partition('/')[2]}" for name in rows}
    own = [name for name in pairs if name.startswith(("val/", "clean_train/", "gap/"))]
    assert len(own) > 10
    # Before the first snapshot, the average equals the raw weights.
    for name in own:
        assert rows[name].iloc[0] == rows[pairs[name]].iloc[0]
        if name.endswith("/loss"):
            assert rows[name].iloc[-1] != rows[pairs[name]].iloc[-1]
    assert not evaluation_sets(metrics)
    step = int(rows.index[-1])
    found = Evaluation.load(evaluation_path(run, step, evaluation_set="validation_average"))
    assert found.loss[0] == pytest.approx(rows["val_average/loss"].iloc[-1], rel=1e-6)


@pytest.mark.parametrize("weights", ["averaged", "raw", "best"])
def test_any_weights_of_a_checkpoint_are_evaluated_and_exported(
    weights: Any, runs: tuple[Path, Path], tiny_module: Tiny
) -> None:
    path = runs[1] / "checkpoints" / "last.ckpt"
    last = read_metrics(runs[1]).dropna(subset=["val/loss"]).iloc[-1]
    losses = {"averaged": last["val_average/loss"], "raw": last["val/loss"]}
    better = min(losses, key=lambda name: losses[name])
    checkpoint = read_checkpoint(path)
    assert checkpoint[AVERAGE]["best"] == better
    given = [f"--ckpt_path={path}", f"--weights={weights}", *SETTINGS, AVERAGED]
    place = tiny_module.run("validate", *given, root=f"validated-{weights}")
    assert validation_loss(place) == pytest.approx(losses.get(weights, losses[better]), rel=1e-6)
    folder = tiny_module.folder / f"exported-{weights}"
    export(str(path), str(folder), weights=weights)
    chosen = choose_weights(checkpoint, weights)
    assert chosen == (better if weights == "best" else weights)
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(weight, checkpoint["state_dict"][f"causal_lm.hf_model.{name}"])


def test_other_commands_evaluate_the_chosen_weights(
    runs: tuple[Path, Path], tiny_module: Tiny
) -> None:
    path = runs[1] / "checkpoints" / "last.ckpt"
    # By default, the better ones are evaluated.
    worse = "raw" if read_checkpoint(path)[AVERAGE]["best"] == "averaged" else "averaged"
    given = [f"--ckpt_path={path}", f"--weights={worse}", *SETTINGS, AVERAGED]
    losses = {}
    for split in ("validation", "test"):
        place = tiny_module.run("predict", *given, f"--data.predict_split={split}", root=split)
        tokens = pd.read_parquet(place / "predictions-0.parquet").query("counted")
        losses[split] = tokens["nll"].mean()
    last = read_metrics(runs[1]).dropna(subset=["val/loss"]).iloc[-1]
    name = "val_average/loss" if worse == "averaged" else "val/loss"
    assert losses["validation"] == pytest.approx(last[name], rel=1e-5)
    assert last["val_average/loss"] != pytest.approx(last["val/loss"], rel=1e-4)
    [written] = tiny_module.run("test", *given, root="tested").rglob("test-step=*.npz")
    assert Evaluation.load(written).loss[0] == pytest.approx(losses["test"], rel=1e-5)


def test_best_is_chosen_among_both(runs: tuple[Path, Path]) -> None:
    run = runs[1]
    evaluated = read_metrics(run).dropna(subset=["val/loss"]).loc[1:]
    both = evaluated[["val/loss", "val_average/loss"]]
    step = read_criterion(run).best_step(evaluated)
    assert both.min(axis=1).idxmin() == step
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")
    assert best["global_step"] == step
    lower = both.loc[step].idxmin()
    assert best[AVERAGE]["best"] == ("averaged" if lower == "val_average/loss" else "raw")


def test_comparison_and_report_know_which_weights_are_better(runs: tuple[Path, Path]) -> None:
    run = runs[1]
    evaluated = read_metrics(run).dropna(subset=["val/loss"]).loc[1:]
    lowest = evaluated[["val/loss", "val_average/loss"]].min()
    result = measure(run)
    assert result.averaged == (lowest["val_average/loss"] < lowest["val/loss"])
    assert result.values["best/loss"] == lowest.min()
    assert result.values["last/loss"] == evaluated["val/loss"].iloc[-1]
    nll, tokens = result.documents["best/loss"]
    assert nll.sum() / tokens.sum() == pytest.approx(lowest.min(), rel=1e-6)
    [sentence] = on_average(read_run("averaged", run))
    assert f"{lowest['val_average/loss']:.3f} nats per token" in sentence
    assert not on_average(read_run("plain", runs[0]))


def test_monitor_may_name_either(tiny: Tiny, runs: tuple[Path, Path]) -> None:
    given = [*SETTINGS, AVERAGED, "--checkpoints.monitor=val_average/accuracy"]
    run = tiny.run("fit", *given, "--checkpoints.mode=max", "--trainer.max_epochs=2")
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")
    assert best[AVERAGE]["best"] == "averaged"
    evaluated = read_metrics(run).dropna(subset=["val/loss"]).loc[1:]
    assert best["global_step"] == evaluated["val_average/accuracy"].idxmax()


def test_other_average_is_refused_on_resume(runs: tuple[Path, Path], tiny_module: Tiny) -> None:
    shutil.copytree(runs[1], tiny_module.folder / "resumed", symlinks=True)
    with pytest.raises(SystemExit, match=r"model\.average: expected the average of the checkpoint"):
        tiny_module.run("fit", *SETTINGS, "--ckpt_path=last", root="resumed")
    saved = read_checkpoint(runs[1] / "checkpoints" / "last.ckpt")
    check_same_average(saved, Average("swa", every=1))
    for average in (Average(), Average("lawa"), None):
        with pytest.raises(ValueError, match="expected the average of the checkpoint"):
            check_same_average(saved, average)


def test_average_of_no_snapshots_is_refused() -> None:
    check_average(Average("swa", start=10), None, steps=40, per_epoch=10)
    with pytest.raises(ValueError, match=r"model\.average: expected at least two snapshots"):
        check_average(Average("swa", start=31), None, steps=40, per_epoch=10)
    check_average(Average("lawa", window=4), None, steps=40, per_epoch=10)
    with pytest.raises(ValueError, match=r"window: expected at most the 4 snapshots of this run"):
        check_average(Average("lawa", window=5), None, steps=40, per_epoch=10)


def test_teacher_shares_an_equal_average_only() -> None:
    check_average(Average(decay=0.99), 0.99, steps=40, per_epoch=10)
    others = Average(), Average(decay=0.99, every=2), Average(decay=0.99, start=5), Average("lawa")
    for average in others:
        with pytest.raises(ValueError, match=r"model\.average: expected kind ema with decay 0.99"):
            check_average(average, 0.99, steps=40, per_epoch=10)


def test_other_averages_are_refused_by_name() -> None:
    for callback in (StochasticWeightAveraging(0.1), EMAWeightAveraging()):
        with pytest.raises(ValueError, match=r"WeightAveraging.*model\.average"):
            check_callbacks(L.Trainer(callbacks=[callback], logger=False))
    schedule_free = torch.optim.SGD([torch.zeros(1)])
    schedule_free.train = schedule_free.eval = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"model\.average: expected null"):
        check_optimizer_averages_nothing(schedule_free)


def test_optimizer_that_rounds_the_average_is_refused() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    check_optimizer_restores_averages(bitsandbytes.optim.AdamW8bit([torch.zeros(1)]))
    half = torch.zeros(1, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"model\.lm\.dtype: expected float32 .* got bfloat16"):
        check_optimizer_restores_averages(bitsandbytes.optim.AdamW8bit([half]))


def test_monitor_without_an_average_is_refused(tiny: Tiny) -> None:
    with pytest.raises(SystemExit, match=r"checkpoints\.monitor: expected a metric"):
        tiny.run("fit", "--checkpoints.monitor=val_average/loss")


def test_checkpoint_without_an_average_has_raw_weights_only() -> None:
    checkpoint: dict[str, Any] = {"state_dict": {}}
    assert choose_weights(checkpoint, "best") == "raw"
    with pytest.raises(ValueError, match="weights: expected a checkpoint with an average"):
        choose_weights(checkpoint, "averaged")
