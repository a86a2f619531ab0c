"""The contents of a run folder, read once for the page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lit_entrodrop.commands.report.records.run_files import (
    DAMAGE,
    RunFiles,
    read_config,
    read_info,
)
from lit_entrodrop.evaluation.diagnosis import ALL, Diagnosis, OverfittingVerdict, diagnose
from lit_entrodrop.runs.criterion import read_criterion
from lit_entrodrop.runs.evaluations import FOLDER as EVALUATIONS
from lit_entrodrop.runs.evaluations import RUN_INFO, Evaluation, read_evaluations, validations
from lit_entrodrop.runs.layout import CONFIG
from lit_entrodrop.runs.metric_name import AVERAGED, VALIDATION_LOSS, MetricName, title_of_bucket
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import (
    bucket_names,
    evaluation_sets,
    mean_drop_rate,
    read_metrics,
    whole_rows,
)
from lit_entrodrop.runs.task_scores import ItemScore, read_all_task_scores
from lit_entrodrop.training.callbacks.samples import FILE_NAME as SAMPLES
from lit_entrodrop.training.callbacks.throughput import FILE_NAME as THROUGHPUT
from lit_entrodrop.training.callbacks.throughput import read_throughput
from lit_entrodrop.training.provenance import location


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run folder; every optional part may be empty.

    Attributes:
        name: Name of the run on the page.
        location: Run folder as commands name it.
        evaluations: Metrics after each validation, indexed by passes over the data.
        training: Metrics logged between validations, with the same index.
        buckets: Names of the entropy buckets, the lowest entropy first.
        edges: Entropies between the buckets, nats.
        detailed: Losses by document, entropies and passages of each evaluation.
        info: Content of ``run.json``.
        diagnosis: Whether and where the run overfits; None if unknown.
        undiagnosed: Why there is no diagnosis, without a final period.
        of_sets: Diagnosis on each evaluation set, by name; None if unknown.
        samples: Generated texts, one mapping each.
        task: Scores of the items of a task, by passes over the data.
        speed: Throughput measured during training.
        config: All settings, as YAML.
        drop_rate: Mean share of the alterable tokens that were dropped; NaN if unknown.
        notes: Sentences on files that could not be read.
        selected_by: Metric that selects the best checkpoint.
    """

    name: str
    location: str
    evaluations: pd.DataFrame
    training: pd.DataFrame
    buckets: list[str]
    edges: list[float]
    detailed: list[Evaluation]
    info: dict[str, Any]
    diagnosis: Diagnosis | None
    undiagnosed: str
    of_sets: dict[str, Diagnosis | None]
    samples: list[dict[str, Any]]
    task: dict[float, list[ItemScore]]
    speed: pd.DataFrame
    config: str
    drop_rate: float
    notes: list[str]
    selected_by: str = VALIDATION_LOSS

    def groups(self, split: str = "val") -> dict[str | None, str]:
        """Return the titles of all tokens (None) and of each bucket that has a token."""
        return {b: title for b, title in self.titles().items() if len(self.curve(split, "loss", b))}

    def titles(self) -> dict[str | None, str]:
        """Return the titles of all tokens (None) and of every bucket."""
        return {bucket: title_of_bucket(bucket) for bucket in (None, *self.buckets)}

    def curve(self, split: str, kind: str, bucket: str | None = None) -> pd.Series:
        """Return a metric after each validation, empty if it was not measured."""
        name = str(MetricName(split, kind, bucket))
        return self.evaluations.get(name, pd.Series(dtype=float)).dropna()

    def trained_loss(self) -> pd.Series:
        """Return the validation loss after each validation since training began."""
        curve = self.curve("val", "loss")
        return curve[curve.index > 0]

    def averaged_loss(self) -> pd.Series:
        """Return the validation loss of the averaged weights since training began, or nothing."""
        curve = self.curve(f"val{AVERAGED}", "loss")
        return curve[curve.index > 0]

    def best_loss(self) -> pd.Series:
        """Return the validation loss of the better weights after each validation."""
        curves = self.trained_loss(), self.averaged_loss()
        return pd.concat(curves, axis="columns").min(axis="columns")

    def verdict(self, bucket: str | None, split: str = "val") -> OverfittingVerdict | None:
        """Return the verdict on a bucket, or on all tokens (None); None if there is none."""
        diagnosis = self.diagnosis if split == "val" else self.of_sets[split]
        return diagnosis.verdicts.get(bucket or ALL) if diagnosis else None

    def settings(self, part: str) -> dict[str, Any]:
        """Return a part of the settings in ``run.json``, empty if it is missing."""
        found = self.info.get("provenance", {}).get(part)
        return found if isinstance(found, dict) else {}

    @property
    def corpus(self) -> str:
        """Names of the training corpora, empty if unknown."""
        return ", ".join(map(str, self.settings("data").get("corpus") or []))


def read_run(name: str, folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        ValueError: If ``metrics.csv`` has no validation losses by epoch.
    """
    metrics, files = read_metrics(folder), RunFiles(folder)
    passes = validations(folder, metrics)["passes"]
    _require_epochs(metrics, passes, folder)
    metrics = metrics.set_axis(positions(metrics, passes))
    info: dict[str, Any] = files.read(RUN_INFO, read_info, {})
    buckets = info.get("buckets", {})
    scored: dict[int, list[ItemScore]] = files.read(EVALUATIONS, read_all_task_scores, {})
    diagnosis, undiagnosed = _diagnosis(files)
    return RunRecord(
        name=name,
        location=location(folder),
        evaluations=metrics.dropna(subset=["val/loss"]).dropna(axis="columns", how="all"),
        training=metrics[metrics.filter(regex="^train/loss$").notna().any(axis=1)],
        buckets=buckets.get("names") or bucket_names(metrics),
        edges=buckets.get("edges", []),
        detailed=files.read(EVALUATIONS, read_evaluations, []),
        info=info,
        diagnosis=diagnosis,
        undiagnosed=undiagnosed,
        of_sets={name: _diagnosis(files, name)[0] for name in evaluation_sets(metrics)},
        samples=files.read(SAMPLES, files.samples, []),
        task={float(passes[step]): scores for step, scores in scored.items() if step in passes},
        speed=whole_rows(files.read(THROUGHPUT, read_throughput, pd.DataFrame())),
        config=files.read(CONFIG, read_config, ""),
        drop_rate=mean_drop_rate(metrics),
        notes=files.notes,
        selected_by=read_criterion(folder).metric,
    )


def positions(metrics: pd.DataFrame, passes: pd.Series) -> Any:
    """Return the number of passes over the data at each step; both tables are indexed by step.

    >>> metrics = pd.DataFrame(index=[0, 5, 10])
    >>> positions(metrics, pd.Series({10: 1.0})).tolist()
    [0.0, 0.5, 1.0]
    """
    at = {0: 0.0, **passes}
    return np.interp(metrics.index.to_numpy(), list(at), list(at.values()))


def _require_epochs(metrics: pd.DataFrame, passes: pd.Series, folder: Path) -> None:
    if passes.empty:
        raise ValueError(
            f"report: expected val/loss in {folder / METRICS}, found none: let the run validate "
            "first, or leave it out"
        )
    if "epoch" not in metrics and not passes[passes.index > 0].all():
        raise ValueError(
            f"report: expected the column epoch in {folder / METRICS}, found none: use the file "
            "that `fit` wrote"
        )


def _diagnosis(files: RunFiles, evaluation_set: str = "") -> tuple[Diagnosis | None, str]:
    try:
        return diagnose(files.folder, evaluation_set), ""
    except LookupError as error:
        return None, f"run: expected buckets and provenance in {RUN_INFO}, found no {error}"
    except DAMAGE as error:
        return None, files.message(error)
