"""All that the folder of a run tells, read once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lit_entrodrop.callbacks.throughput import read_throughput
from lit_entrodrop.diagnosis import Diagnosis, diagnose
from lit_entrodrop.evaluations import Evaluation, read_evaluations, read_run_info, validations
from lit_entrodrop.metrics_file import read_metrics
from lit_entrodrop.provenance import settings_of

NOTHING = (ValueError, OSError)


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

    def groups(self) -> dict[str, str]:
        """Return the endings of metrics' names and what they mean: all tokens, and each bucket."""
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
        ValueError: if it holds no validation loss.
    """
    metrics = read_metrics(folder)
    if "val/loss" not in metrics:
        raise ValueError(
            f"report: expected val/loss in {folder / 'metrics.csv'}, found none: "
            "has the run validated yet?"
        )
    detailed = _detailed(folder)
    metrics = metrics.set_axis(positions(metrics, validations(folder, metrics)["passes"]))
    info = _info(folder)
    buckets = info.get("buckets", {})
    diagnosis, undiagnosed = _diagnosis(folder)
    return Run(
        name=name,
        evaluations=metrics.dropna(subset=["val/loss"]).dropna(axis="columns", how="all"),
        training=metrics[metrics.filter(regex="^train/loss$").notna().any(axis=1)],
        buckets=buckets.get("names") or buckets_of(metrics),
        edges=buckets.get("edges", []),
        detailed=detailed,
        info=info,
        diagnosis=diagnosis,
        undiagnosed=undiagnosed,
        samples=_lines(folder / "samples.jsonl"),
        speed=_speed(folder),
        config=_config(folder / "config.yaml"),
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


def buckets_of(metrics: pd.DataFrame) -> list[str]:
    """Return the groups of tokens that metrics tell apart, low entropy first.

    >>> buckets_of(pd.DataFrame(columns=["val/loss_high_entropy", "val/loss_low_entropy"]))
    ['low', 'high']
    """
    names = metrics.filter(regex="^val/loss_.*_entropy$").columns
    found = [n.removeprefix("val/loss_").removesuffix("_entropy") for n in names]
    order = {"low": 0, "mid": 1, "high": 2}
    return sorted(found, key=lambda name: order.get(name, len(order)))


def _info(folder: Path) -> dict[str, Any]:
    try:
        return read_run_info(folder)
    except NOTHING:
        return {}


def _detailed(folder: Path) -> list[Evaluation]:
    try:
        return read_evaluations(folder)
    except NOTHING:
        return []


def _diagnosis(folder: Path) -> tuple[Diagnosis | None, str]:
    try:
        return diagnose(folder), ""
    except NOTHING as error:
        # The folders above it tell of the machine and of nothing else.
        return None, str(error).replace(str(folder), folder.name)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _speed(folder: Path) -> pd.DataFrame:
    try:
        return read_throughput(folder)
    except NOTHING:
        return pd.DataFrame()


def _config(path: Path) -> str:
    if not path.is_file():
        return ""
    # Without folders, which tell of the machine and of nothing else.
    settings = settings_of(yaml.safe_load(path.read_text()))
    text: str = yaml.safe_dump(settings, sort_keys=False, width=88, allow_unicode=True)
    return text
