"""What a finished run has come to, in numbers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lit_entrodrop.evaluation.metrics import all_token_metrics
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.evaluations import Evaluation, evaluation_path, read_run_info, validations
from lit_entrodrop.runs.layout import find_checkpoint
from lit_entrodrop.runs.metrics_file import bucket_names, mean_drop_rate, read_metrics, whole_rows
from lit_entrodrop.training.callbacks.throughput import read_throughput

BEST_VALIDATION = "best/validation_loss"
# Names of further values, in a comparison and in the metrics of a run.
FROM_METRICS = {
    "gap": "gap/loss",
    "clean_train_loss": "clean_train/loss",
    "memorized": "clean_train/memorized",
}
STEP = re.compile(r"step=(\d+)(?:-v\d+)?\.ckpt")

Documents = tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True)
class Result:
    """What a run has come to.

    Args:
        folder: of the run.
        values: by name: ``best/loss``, at the lowest validation loss after training began,
            ``last/loss``, at the end, and so on.
        documents: summed nats and tokens of each document, ``[D]`` each, by the name of a loss;
            empty if the run has kept none.
        total_steps: optimizer steps done.
    """

    folder: Path
    values: dict[str, float]
    documents: dict[str, Documents]
    total_steps: int


def measure(folder: Path, split: str = "validation") -> Result:
    """Read what a run has come to.

    Args:
        folder: of a finished run.
        split: on which losses are told: ``validation``, or ``test`` if both its best and its last
            checkpoint were evaluated on it.

    Raises:
        ValueError: if the run has not validated, or was not evaluated on the split.
    """
    metrics = read_metrics(folder)
    evaluated, names = evaluated_rows(metrics, folder), _losses(folder, metrics)
    rows = {"best": evaluated.loc[evaluated["val/loss"].idxmin()], "last": evaluated.iloc[-1]}
    steps = _checkpoint_steps(folder, metrics, evaluated) if split == "test" else {}
    values: dict[str, float] = {BEST_VALIDATION: float(rows["best"]["val/loss"])}
    documents: dict[str, Documents] = {}
    for moment, row in rows.items():
        if split == "test":
            found = _evaluation(folder, steps[moment], split)
            losses = _test_losses(found, names, folder, moment)
        else:
            found = _evaluation(folder, int(row.name), split)
            losses = {name: float(row.get(f"val/{name}", np.nan)) for name in names}
        values |= {f"{moment}/{name}": loss for name, loss in losses.items()}
        documents |= _documents(moment, found, list(losses))
        values |= _beside_losses(moment, row, metrics, split)
    values |= {"best_epoch": float(rows["best"]["passes"])}
    values |= {"drop_rate": mean_drop_rate(metrics), "seconds_per_step": seconds_per_step(folder)}
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    return Result(folder, finite, documents, int(metrics.index[-1]))


def checkpoint_steps(folder: Path) -> dict[str, int]:
    """Return the steps of the best checkpoint and of the last.

    The last may come after validation, and the best need not be that of the lowest validation loss:
    with a step half done, none is kept. Without checkpoints, they are those that were logged.

    Raises:
        ValueError: if the run has not validated since training began.
    """
    metrics = read_metrics(folder)
    return _checkpoint_steps(folder, metrics, evaluated_rows(metrics, folder))


def _checkpoint_steps(
    folder: Path, metrics: pd.DataFrame, evaluated: pd.DataFrame
) -> dict[str, int]:
    logged = {"best": int(evaluated["val/loss"].idxmin()), "last": int(metrics.index[-1])}
    return {name: _kept_step(name, folder) or step for name, step in logged.items()}


def are_tested(folder: Path) -> bool:
    """Tell whether the best and the last checkpoint of a run were evaluated on the test split."""
    steps = checkpoint_steps(folder).values()
    return all(evaluation_path(folder, step, "test").exists() for step in steps)


def seconds_per_step(folder: Path) -> float:
    """Return the median time of an optimizer step, NaN if the run has kept none."""
    try:
        return float(whole_rows(read_throughput(folder))["seconds_per_step"].median())
    except (ValueError, LookupError):
        return float("nan")


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hashes of the splits that a run was trained and evaluated on, by their names."""
    found = _info(folder).get("fingerprints")
    known = found if isinstance(found, dict) else {}
    return {str(name): str(value) for name, value in known.items()}


def evaluated_rows(metrics: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the metrics at each evaluation after training began, with ``passes`` over the data.

    Args:
        metrics: Metrics of a run, indexed by step.
        folder: Folder of the run.

    Raises:
        ValueError: If there is none.
    """
    known = validations(folder, metrics)
    evaluated = known[known.index > 0]
    if evaluated.empty:
        raise ValueError(
            f"run: expected a validation loss after training in {folder}, found none: set "
            "data.validation, and train for an epoch at least"
        )
    return evaluated


def _losses(folder: Path, metrics: pd.DataFrame) -> list[str]:
    """Name the losses in the order in which evaluations keep them."""
    kept = _info(folder).get("buckets")
    names = kept.get("names") if isinstance(kept, dict) else None
    return ["loss", *(f"loss_{bucket}_entropy" for bucket in names or bucket_names(metrics))]


def _info(folder: Path) -> dict[str, Any]:
    try:
        return read_run_info(folder)
    except ValueError:
        return {}


def _kept_step(name: str, folder: Path) -> int | None:
    try:
        path = find_checkpoint(name, folder)
        assert path is not None, "only a new run may have none"
        if kept := STEP.fullmatch(path.name):
            return int(kept[1])
        # A copied folder may hold files in place of links.
        return int(read_checkpoint(path)["global_step"])
    except (ValueError, LookupError):
        return None


def _test_losses(
    found: Evaluation | None, names: list[str], folder: Path, moment: str
) -> dict[str, float]:
    if found is None:
        raise ValueError(
            f"run: expected an evaluation of {folder} on the test split, found none: run "
            f"`lit-entrodrop test --config {folder}/config.yaml --ckpt_path {moment}`"
        )
    return dict(zip(names, map(float, found.loss), strict=False))


def _documents(
    moment: str, evaluation: Evaluation | None, names: list[str]
) -> dict[str, Documents]:
    if evaluation is None or evaluation.nll.shape[1] != len(names):
        return {}
    return {
        f"{moment}/{name}": (evaluation.nll[:, column], evaluation.tokens[:, column])
        for column, name in enumerate(names)
    }


def _evaluation(folder: Path, step: int, split: str) -> Evaluation | None:
    path = evaluation_path(folder, step, "test" if split == "test" else None)
    return Evaluation.load(path) if path.exists() else None


def _beside_losses(
    moment: str, row: pd.Series, metrics: pd.DataFrame, split: str
) -> dict[str, float]:
    # `test` leaves the losses of documents, not other metrics.
    compared = [n for n, each in all_token_metrics().items() if each.compared and n != "loss"]
    others = {name: f"val/{name}" for name in compared if split == "validation"}
    values = {
        f"{moment}/{name}": float(row[column])
        for name, column in (others | FROM_METRICS).items()
        if column in row
    }
    if "forgetting/loss" in row and 0 in metrics.index:
        before = metrics.loc[0, "forgetting/loss"]
        values[f"{moment}/forgetting"] = float(row["forgetting/loss"] - before)
    return values
