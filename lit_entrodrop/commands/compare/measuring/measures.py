"""Metrics of a finished run."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lit_entrodrop.commands.compare.measuring.run_info import fingerprints, origin, read_info
from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.criterion import read_criterion
from lit_entrodrop.runs.evaluations import Evaluation, evaluation_path, validations
from lit_entrodrop.runs.layout import find_checkpoint
from lit_entrodrop.runs.metric_name import (
    AVERAGED,
    TASK,
    VALIDATION_LOSS,
    MetricName,
    is_of_average,
    of_average,
)
from lit_entrodrop.runs.metrics_file import (
    bucket_names,
    evaluation_sets,
    mean_drop_rate,
    read_metrics,
    whole_rows,
)
from lit_entrodrop.runs.task_scores import (
    ItemScore,
    mean_score,
    read_task_scores,
    task_scores_path,
)
from lit_entrodrop.training.callbacks.throughput import read_throughput

# Value of the criterion at the best evaluation, such that lower is better.
SCORE = "best/score"
# Names of further values, in a comparison and in the metrics of a run.
FROM_METRICS = {
    "gap": "gap/loss",
    "clean_train_loss": "clean_train/loss",
    "memorized": "clean_train/memorized",
}
STEP = re.compile(r"step=(\d+)(?:-v\d+)?\.ckpt")

Documents = tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True)
class RunResult:
    """Metrics of a run.

    Args:
        folder: Folder of the run; None if the run is imported.
        values: Values by name, such as ``best/loss``, at the best evaluation after training began,
            and ``last/loss``, at the end.
        documents: Summed loss in nats and number of tokens of each document, ``[D]`` each, by the
            name of the loss; empty if the run has saved none.
        total_steps: Number of optimizer steps done.
        items: Scores of the items of a task, by the name of the mean score; empty without a task.
        selected_by: Metric that selects the best evaluation. Default: the validation loss.
        averaged: Whether the best evaluation is one of the averaged weights. Default: False.
        fingerprints: Hash of each split, by name.
        origin: Versions of packages and the device, by name.
        train_tokens: Number of training tokens; None if unknown.
    """

    folder: Path | None
    values: dict[str, float]
    documents: dict[str, Documents]
    total_steps: int
    items: dict[str, list[ItemScore]] = field(default_factory=dict)
    selected_by: str = VALIDATION_LOSS
    averaged: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    train_tokens: int | None = None


def measure(folder: Path, split: str = "validation") -> RunResult:
    """Read the metrics of a run.

    Raises:
        ValueError: If the run has no validation loss, or was not evaluated on the split.
    """
    metrics = read_metrics(folder)
    evaluated, names = evaluated_rows(metrics, folder), _losses(folder, metrics)
    criterion = read_criterion(folder)
    best = evaluated.loc[criterion.best_step(evaluated)]
    metric = criterion.best_metric(best.to_dict()) or criterion.metric
    averaged = {"best": is_of_average(metric), "last": False}
    rows = {"best": of_weights(best, averaged["best"]), "last": evaluated.iloc[-1]}
    steps = {moment: int(row.name) for moment, row in rows.items()}
    if split == "test":
        steps = checkpoint_steps(folder)
    values: dict[str, float] = {SCORE: criterion.score(best[metric])}
    documents: dict[str, Documents] = {}
    items: dict[str, list[ItemScore]] = {}
    for moment, row in rows.items():
        path = evaluation_path(folder, steps[moment], "test")
        if split != "test":
            own_set = f"validation{AVERAGED}" if averaged[moment] else ""
            path = evaluation_path(folder, steps[moment], evaluation_set=own_set)
        found = Evaluation.load(path) if path.exists() else None
        losses = {name: float(row.get(f"val/{name}", np.nan)) for name in names}
        if split == "test":
            losses = _test_losses(found, names, folder, moment)
        values |= {f"{moment}/{name}": loss for name, loss in losses.items()}
        documents |= _documents(moment, found, list(losses))
        for evaluation_set in evaluation_sets(evaluated):
            own = {
                f"{moment}/{evaluation_set}/{name}": f"{evaluation_set}/{name}" for name in names
            }
            values |= {name: float(row.get(column, np.nan)) for name, column in own.items()}
            own_set = f"{evaluation_set}{AVERAGED}" if averaged[moment] else evaluation_set
            path = evaluation_path(folder, int(row.name), evaluation_set=own_set)
            found = Evaluation.load(path) if path.exists() else None
            documents |= _documents(f"{moment}/{evaluation_set}", found, names)
        values |= _further_values(moment, row, metrics, split)
        items |= _items(moment, row, folder, steps[moment], split)
    values |= {name: mean_score(scores) for name, scores in items.items()}
    values |= {"best_epoch": float(rows["best"]["passes"])}
    values |= {"drop_rate": mean_drop_rate(metrics), "seconds_per_step": seconds_per_step(folder)}
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    total = int(metrics.index[-1])
    known = criterion.metric, averaged["best"], fingerprints(folder), origin(folder)
    tokens = read_info(folder).get("train_tokens")
    return RunResult(folder, finite, documents, total, items, *known, tokens)


def of_weights(row: pd.Series, averaged: bool) -> pd.Series:
    """Return the metrics of an evaluation; those of the averaged weights under the usual names.

    >>> row = pd.Series({"val/loss": 2.1, "val_average/loss": 2.0})
    >>> of_weights(row, True)["val/loss"].item()
    2.0
    """
    others = {name: of_average(str(name)) for name in row.index if averaged}
    averages = {name: row[other] for name, other in others.items() if other in row.index}
    return pd.Series({**row, **averages}, name=row.name)


def checkpoint_steps(folder: Path) -> dict[str, int]:
    """Return the steps of the best and of the last checkpoint.

    The last checkpoint may be later than the last validation. The best one need not be at the
    best evaluation, as no checkpoint is saved within an optimizer step. Without
    checkpoints, the steps are those of the logged metrics.

    Raises:
        ValueError: If the run has no validation loss after training began.
    """
    metrics = read_metrics(folder)
    best = read_criterion(folder).best_step(evaluated_rows(metrics, folder))
    logged = {"best": best, "last": int(metrics.index[-1])}
    return {name: _kept_step(name, folder) or step for name, step in logged.items()}


def are_tested(folder: Path) -> bool:
    """Return whether the best and the last checkpoint were evaluated on the test split."""
    steps = checkpoint_steps(folder).values()
    return all(evaluation_path(folder, step, "test").exists() for step in steps)


def seconds_per_step(folder: Path) -> float:
    """Return the median time of an optimizer step in seconds, NaN if unknown."""
    try:
        return float(whole_rows(read_throughput(folder))["seconds_per_step"].median())
    except (ValueError, LookupError):
        return float("nan")


def evaluated_rows(metrics: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the metrics at each evaluation after training began, with ``passes`` over the data.

    Raises:
        ValueError: If there is none.
    """
    known = validations(folder, metrics)
    evaluated = known[known.index > 0]
    if evaluated.empty:
        raise ValueError(
            f"run: expected a validation loss after training in {folder}, found none: set "
            "data.validation and train for at least one epoch"
        )
    return evaluated


def _losses(folder: Path, metrics: pd.DataFrame) -> list[str]:
    """Return the names of the losses in the order of the columns of an evaluation."""
    kept = read_info(folder).get("buckets")
    names = kept.get("names") if isinstance(kept, dict) else None
    return [str(MetricName("", "loss", each)) for each in (None, *(names or bucket_names(metrics)))]


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


def _further_values(
    moment: str, row: pd.Series, metrics: pd.DataFrame, split: str
) -> dict[str, float]:
    # `test` saves the losses of documents, not other metrics.
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


def _items(
    moment: str, row: pd.Series, folder: Path, step: int, split: str
) -> dict[str, list[ItemScore]]:
    """Return the scores of a task by item, which the checkpoint or the evaluation has."""
    path = task_scores_path(folder, step, "test" if split == "test" else None)
    scored = [n for n in map(MetricName.parse, map(str, row.index)) if n.split == TASK]
    if not scored or not path.exists():
        return {}
    return {f"{moment}/{TASK}_{scored[0].kind}": read_task_scores(path)}
