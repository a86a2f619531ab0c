"""Diagnosis of a run: a verdict for each group of tokens, and its explanation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_entrodrop.evaluation.diagnosis.epoch_drops import EpochDrops, epoch_drops
from lit_entrodrop.evaluation.diagnosis.explanation import ALL, Explanation, explain
from lit_entrodrop.evaluation.diagnosis.overfitting import OverfittingVerdict, judge
from lit_entrodrop.runs.evaluations import Evaluation, read_evaluations, read_run_info
from lit_entrodrop.runs.metric_name import TRAIN_LOSS, MetricName
from lit_entrodrop.runs.metrics_file import FILE_NAME, read_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a run.

    Attributes:
        verdicts: Verdict on all tokens (``all``) and on each entropy bucket, by name.
        epoch_drops: Drops of the training loss between epochs; None if they were not measured.
        last_epoch: Passes over the data at the last evaluation.
        regularized: Whether the run trains with a regularizer.
    """

    verdicts: dict[str, OverfittingVerdict]
    epoch_drops: EpochDrops | None
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
        """The finding, its evidence and the remedy, in plain language."""
        return explain(
            self.verdicts, self.worst, self.last_epoch, self.regularized, self.epoch_drops
        )

    @property
    def sentences(self) -> list[str]:
        """The explanation as sentences."""
        return self.explanation.sentences


def diagnose(folder: str | Path, evaluation_set: str = "") -> Diagnosis:
    """Diagnose a finished or running run from its folder.

    Args:
        folder: Path to the run folder, with ``evaluations/``, ``run.json`` and ``metrics.csv``.
        evaluation_set: Name of the evaluation set to judge by; empty for the validation split.

    Raises:
        ValueError: If the folder has no evaluations.
    """
    evaluations = comparable(read_evaluations(folder, evaluation_set))
    if not evaluations:
        raise ValueError(
            f"run: expected evaluations in {folder}, found none: `fit` writes them at each "
            "validation unless monitors.evaluations is null"
        )
    import pandas as pd

    info = read_run_info(folder)
    # A run without loggers has no metrics.
    has_metrics = (Path(folder) / FILE_NAME).exists()
    metrics = read_metrics(folder) if has_metrics else pd.DataFrame()
    names = [ALL, *info["buckets"]["names"]]
    epochs = np.array([each.epoch for each in evaluations], dtype=np.float64)
    verdicts = {}
    for column, name in enumerate(names):
        if (tokens := evaluations[-1].tokens[:, column]).any():
            nll = np.stack([each.nll[:, column] for each in evaluations])
            clean_train = _clean_train(metrics, evaluations, name)
            verdicts[name] = judge(nll, tokens, epochs, clean_train, len(names))
    regularized = bool(info["provenance"]["regularizers"])
    rows = metrics.reindex(columns=["epoch", TRAIN_LOSS]).dropna()
    drops = epoch_drops(rows["epoch"], rows[TRAIN_LOSS])
    return Diagnosis(verdicts, drops, evaluations[-1].epoch, regularized)


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


def _clean_train(
    metrics: "pd.DataFrame", evaluations: Sequence[Evaluation], name: str
) -> np.ndarray | None:
    column = str(MetricName("clean_train", "loss", None if name == ALL else name))
    steps = [evaluation.step for evaluation in evaluations]
    values = metrics.reindex(index=steps, columns=[column])[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).any() else values
