"""Diagnosis of a run: a verdict for each group of tokens, and its explanation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_entrodrop.evaluation.diagnosis.explanation import ALL, Explanation, explain
from lit_entrodrop.evaluation.diagnosis.overfitting import RULE, OverfittingVerdict, judge
from lit_entrodrop.runs.evaluations import Evaluation, read_evaluations, read_run_info
from lit_entrodrop.runs.metric_name import TRAIN_LOSS, MetricName
from lit_entrodrop.runs.metrics_file import FILE_NAME, read_metrics

if TYPE_CHECKING:
    import pandas as pd

# The first quarter of an epoch's training metrics is its start, the last quarter its end. Their
# centers are three times as far apart as the end and the next start.
BORDER, DISTANCE = 0.25, 3
LEAST_ROWS = 8


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a run.

    Attributes:
        verdicts: Verdict on all tokens (``all``) and on each entropy bucket, by name.
        epoch_drops: Drop of the training loss from the end of each epoch to the start of the next
            that the slopes within both do not explain, nats per token. Such drops show that the
            model recognizes text it has seen. Empty if epochs have too few rows.
        last_epoch: Passes over the data at the last evaluation.
        regularized: Whether the run trains with a regularizer.
    """

    verdicts: dict[str, OverfittingVerdict]
    epoch_drops: list[float]
    last_epoch: float
    regularized: bool

    @property
    def overfits(self) -> bool:
        """Whether any group of tokens overfits."""
        return any(verdict.overfits for verdict in self.verdicts.values())

    @property
    def worst(self) -> str | None:
        """Overfitting bucket with the largest rise of the loss; None if no bucket overfits."""
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
    """Diagnose a finished or running run from its folder.

    Args:
        folder: Path to the run folder, with ``evaluations/``, ``run.json`` and ``metrics.csv``.

    Raises:
        ValueError: If the folder has no evaluations.
    """
    evaluations = comparable(read_evaluations(folder))
    if not evaluations:
        raise ValueError(
            f"run: expected evaluations in {folder}, found none: `fit` writes them at each "
            "validation unless monitors.evaluations is null"
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
    """Return the evaluations with the same tokens and buckets as the last one.

    They differ if a run was resumed with other validation settings.
    """
    return [
        each
        for each in evaluations
        if np.array_equal(each.tokens, evaluations[-1].tokens)
        and np.array_equal(each.edges, evaluations[-1].edges)
    ]


def epoch_drops(metrics: "pd.DataFrame") -> list[float]:
    """Return the drop of the training loss between epochs that its slope does not explain.

    Args:
        metrics: Metrics of a run.

    Returns:
        Drops in nats per token, one for each pair of successive epochs; empty if an epoch has fewer
        than 8 rows.
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


def _metrics(folder: Path) -> "pd.DataFrame":
    import pandas as pd

    # A run without loggers has no metrics.
    return read_metrics(folder) if (folder / FILE_NAME).exists() else pd.DataFrame()


def _verdict(
    evaluations: Sequence[Evaluation], column: int, clean_train: np.ndarray | None, groups: int
) -> OverfittingVerdict:
    nll = np.stack([evaluation.nll[:, column] for evaluation in evaluations])
    epochs = np.array([evaluation.epoch for evaluation in evaluations], dtype=np.float64)
    return judge(nll, evaluations[-1].tokens[:, column], epochs, clean_train, groups)


def _clean_train(
    metrics: "pd.DataFrame", evaluations: Sequence[Evaluation], name: str
) -> np.ndarray | None:
    column = str(MetricName("clean_train", "loss", None if name == ALL else name))
    steps = [evaluation.step for evaluation in evaluations]
    values = metrics.reindex(index=steps, columns=[column])[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).any() else values
