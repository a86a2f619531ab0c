"""All that the folder of a run tells, read once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lit_entrodrop.commands.report.files import DAMAGE, Files
from lit_entrodrop.evaluation.diagnosis import Diagnosis, diagnose
from lit_entrodrop.runs.evaluations import RUN_INFO, Evaluation, validations
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import bucket_names, read_metrics


@dataclass(frozen=True)
class Run:
    """What a run has left; whatever is optional may be empty.

    Attributes:
        name: what the page calls it.
        evaluations: metrics after each validation; the index counts passes over the data.
        training: metrics logged between them; the same index.
        buckets: names of the groups of tokens, from low entropy to high.
        edges: entropies between them, nats.
        detailed: what each evaluation kept of documents, entropies and passages.
        info: of the run as a whole.
        diagnosis: whether and where it overfits.
        undiagnosed: why there is no diagnosis.
        samples: texts that the model wrote.
        speed: measured while it ran.
        config: all settings, as YAML.
        notes: what could not be read, in words.
    """

    name: str
    evaluations: pd.DataFrame
    training: pd.DataFrame
    buckets: list[str]
    edges: list[float]
    detailed: list[Evaluation]
    info: dict[str, Any]
    diagnosis: Diagnosis | None
    undiagnosed: str
    samples: list[dict[str, Any]]
    speed: pd.DataFrame
    config: str
    notes: list[str]

    def groups(self) -> dict[str, str]:
        """Return the endings of metrics' names and what they mean: all tokens, and each bucket.

        Without buckets that no validation token is in.
        """
        titles = self.titles()
        return {ending: titles[ending] for ending in titles if len(self.curve(f"val/loss{ending}"))}

    def titles(self) -> dict[str, str]:
        """Return the same as :meth:`groups` does, with buckets that no token is in."""
        # Beyond three, buckets have numbers.
        names = {b: b.replace("_", " ") if "_" in b else f"{b} entropy" for b in self.buckets}
        return {"": "all tokens"} | {f"_{b}_entropy": name for b, name in names.items()}

    def curve(self, metric: str) -> pd.Series:
        """Return a metric after each validation, empty where there is none."""
        return self.evaluations.get(metric, pd.Series(dtype=float)).dropna()


def read_run(name: str, folder: Path) -> Run:
    """Read the folder of a run.

    Args:
        name: what to call it.
        folder: that `fit` wrote.

    Raises:
        ValueError: if ``metrics.csv`` holds no validation losses over epochs.
    """
    metrics, files = read_metrics(folder), Files(folder)
    passes = validations(folder, metrics)["passes"]
    _require_epochs(metrics, passes, folder)
    metrics = metrics.set_axis(positions(metrics, passes))
    info = files.info()
    buckets = info.get("buckets", {})
    diagnosis, undiagnosed = _diagnosis(files)
    return Run(
        name=name,
        evaluations=metrics.dropna(subset=["val/loss"]).dropna(axis="columns", how="all"),
        training=metrics[metrics.filter(regex="^train/loss$").notna().any(axis=1)],
        buckets=buckets.get("names") or bucket_names(metrics),
        edges=buckets.get("edges", []),
        detailed=files.evaluations(),
        info=info,
        diagnosis=diagnosis,
        undiagnosed=undiagnosed,
        samples=files.samples(),
        speed=files.speed(),
        config=files.config(),
        notes=files.notes,
    )


def positions(metrics: pd.DataFrame, passes: pd.Series) -> Any:
    """Return how many passes over the data were done at each step.

    Args:
        metrics: indexed by step.
        passes: done at some steps.

    >>> metrics = pd.DataFrame(index=[0, 5, 10])
    >>> positions(metrics, pd.Series({10: 1.0})).tolist()
    [0.0, 0.5, 1.0]
    """
    at = {0: 0.0, **passes}
    return np.interp(metrics.index.to_numpy(), list(at), list(at.values()))


def _require_epochs(metrics: pd.DataFrame, passes: pd.Series, folder: Path) -> None:
    if passes.empty:
        raise ValueError(
            f"report: expected val/loss in {folder / METRICS}, found none: "
            "has the run validated yet?"
        )
    if "epoch" not in metrics and not passes[passes.index > 0].all():
        raise ValueError(
            f"report: expected the column epoch in {folder / METRICS}, found none: is it the file "
            "that `fit` has written?"
        )


def _diagnosis(files: Files) -> tuple[Diagnosis | None, str]:
    try:
        return diagnose(files.folder), ""
    except LookupError as error:
        return None, f"run: expected buckets and provenance in {RUN_INFO}, found no {error}"
    except DAMAGE as error:
        return None, files.told(error)
