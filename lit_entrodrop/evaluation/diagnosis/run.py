"""The diagnosis of a run: a verdict for each group of tokens, and its explanation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lit_entrodrop.evaluation.diagnosis.explanation import ALL, Explanation, explain
from lit_entrodrop.evaluation.diagnosis.overfitting import RULE, Verdict, judge
from lit_entrodrop.runs.evaluations import Evaluation, read_evaluations, read_run_info
from lit_entrodrop.runs.metric_name import TRAIN_LOSS, MetricName
from lit_entrodrop.runs.metrics_file import FILE_NAME, read_metrics

# A quarter of an epoch's training metrics counts as its start, and one as its end: from one to the
# other it is three times as far as from the end to the next start.
BORDER, DISTANCE = 0.25, 3
LEAST_ROWS = 8


@dataclass(frozen=True)
class Diagnosis:
    """Whether a run overfits, where, and since when.

    Attributes:
        verdicts: of all tokens (``all``) and of each entropy bucket, by name.
        epoch_drops: by how much the training loss falls from the end of each epoch to the start of
            the next, beyond its slope within both, nats per token: such a stair tells of text that
            is recognised. Empty if epochs have too few rows to tell.
        last_epoch: passes over the data at the last evaluation.
        regularized: whether any regularizer is at work.
    """

    verdicts: dict[str, Verdict]
    epoch_drops: list[float]
    last_epoch: float
    regularized: bool

    @property
    def overfits(self) -> bool:
        """Whether any group of tokens overfits."""
        return any(verdict.overfits for verdict in self.verdicts.values())

    @property
    def worst(self) -> str | None:
        """The bucket whose loss has risen most among those that overfit, if any does."""
        rises = {name: v.rise for name, v in self.verdicts.items() if v.overfits and name != ALL}
        return max(rises, key=lambda name: rises[name], default=None)

    @property
    def explanation(self) -> Explanation:
        """The finding, its evidence and what to do, in plain language."""
        return explain(
            self.verdicts, self.worst, self.last_epoch, self.regularized, self.epoch_drops
        )

    @property
    def sentences(self) -> list[str]:
        """The explanation as sentences."""
        return self.explanation.sentences

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "verdicts": {name: asdict(verdict) for name, verdict in self.verdicts.items()},
            "epoch_drops": self.epoch_drops,
            "last_epoch": self.last_epoch,
            "overfits": self.overfits,
            "worst": self.worst,
            "sentences": self.sentences,
            "rule": RULE,
        }


def diagnose(folder: str | Path) -> Diagnosis:
    """Diagnose a run from its folder; it may be under way.

    Args:
        folder: the run's, with ``evaluations/``, ``run.json`` and ``metrics.csv``.

    Raises:
        ValueError: if the folder holds no evaluations.

    Returns:
        The diagnosis.
    """
    evaluations = comparable(read_evaluations(folder))
    if not evaluations:
        raise ValueError(
            f"run: expected evaluations in {folder}, found none: they are written by `fit` at each "
            "validation, unless monitors.evaluations is null"
        )
    info, metrics = read_run_info(folder), _metrics(Path(folder))
    names = [ALL, *info["buckets"]["names"]]
    verdicts = {
        name: _verdict(evaluations, column, _clean_train(metrics, evaluations, name), len(names))
        for column, name in enumerate(names)
        if evaluations[-1].tokens[:, column].any()
    }
    regularized = bool(info["provenance"]["regularizers"])
    return Diagnosis(verdicts, epoch_drops(metrics), evaluations[-1].epoch, regularized)


def comparable(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return those evaluations that are of the same tokens, in the same buckets, as the last.

    A run may have been resumed with other settings of validation.
    """
    return [
        each
        for each in evaluations
        if np.array_equal(each.tokens, evaluations[-1].tokens)
        and np.array_equal(each.edges, evaluations[-1].edges)
    ]


def epoch_drops(metrics: pd.DataFrame) -> list[float]:
    """Return the stair at each border of two epochs: what it falls there beyond its slope.

    Args:
        metrics: of a run; with too few rows an epoch they tell nothing.

    Returns:
        Nats per token, one number a border.
    """
    rows = metrics.reindex(columns=["epoch", TRAIN_LOSS]).dropna()
    losses = [group[TRAIN_LOSS].to_numpy() for _, group in rows.groupby("epoch")]
    if not losses or min(map(len, losses)) < LEAST_ROWS:
        return []
    sizes = [round(BORDER * len(each)) for each in losses]
    starts = [each[:size].mean() for each, size in zip(losses, sizes, strict=True)]
    ends = [each[-size:].mean() for each, size in zip(losses, sizes, strict=True)]
    slopes = [(start - end) / DISTANCE for start, end in zip(starts, ends, strict=True)]
    return [
        float(ends[e] - starts[e + 1] - (slopes[e] + slopes[e + 1]) / 2)
        for e in range(len(losses) - 1)
    ]


def _metrics(folder: Path) -> pd.DataFrame:
    # A run without loggers has none.
    return read_metrics(folder) if (folder / FILE_NAME).exists() else pd.DataFrame()


def _verdict(
    evaluations: Sequence[Evaluation], column: int, clean_train: np.ndarray | None, groups: int
) -> Verdict:
    nll = np.stack([evaluation.nll[:, column] for evaluation in evaluations])
    epochs = np.array([evaluation.epoch for evaluation in evaluations], dtype=np.float64)
    return judge(nll, evaluations[-1].tokens[:, column], epochs, clean_train, groups)


def _clean_train(
    metrics: pd.DataFrame, evaluations: Sequence[Evaluation], name: str
) -> np.ndarray | None:
    column = str(MetricName("clean_train", "loss", None if name == ALL else name))
    steps = [evaluation.step for evaluation in evaluations]
    values = metrics.reindex(index=steps, columns=[column])[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).any() else values
