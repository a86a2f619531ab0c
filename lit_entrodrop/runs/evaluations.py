"""What each validation leaves in a run's folder: the loss of every document, and more.

``evaluations/step=N.npz`` is written at each validation of `fit`; ``run.json`` tells what all of
them share.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lit_entrodrop.runs.writing import write_whole

FOLDER = "evaluations"
RUN_INFO = "run.json"
SHARED = {"buckets", "passages", "provenance", "fingerprints"}
# What a file raises that is cut short, altered or something else.
UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)
OF_A_FIT = re.compile(r"step=(\d+)\.npz")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of a model on a split of D documents, with K entropy buckets.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training data done, 0 before training; broken within an epoch.
        nll: ``[D, 1 + K]`` fp64, summed loss of each document in nats; column 0 is over all tokens,
            the others over those of a bucket, the lowest entropy first.
        tokens: ``[D, 1 + K]`` int64, the tokens summed over.
        histogram: ``[bins]`` int64, tokens by the entropy of the model's prediction.
        histogram_edges: ``[bins + 1]`` fp64 nats.
        passage_nll: ``[P, T]`` fp32 nats, loss of each token of some passages; NaN where a token
            does not count.
        passage_entropy: ``[P, T]`` fp32 nats, entropy of the same predictions.
        edges: ``[K - 1]`` fp64 nats, between the buckets; empty if nothing is known of them.
    """

    step: int
    epoch: float
    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]
    histogram: NDArray[np.int64]
    histogram_edges: NDArray[np.float64]
    passage_nll: NDArray[np.float32]
    passage_entropy: NDArray[np.float32]
    edges: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def loss(self) -> NDArray[np.float64]:
        """Loss over all tokens and in each bucket, ``[1 + K]`` nats per token."""
        tokens = self.tokens.sum(0)
        loss = np.full(tokens.shape, np.nan)
        np.divide(self.nll.sum(0), tokens, out=loss, where=tokens > 0)
        return loss

    def save(self, path: Path) -> None:
        """Write the evaluation to a file, all or nothing."""
        file = BytesIO()
        np.savez_compressed(file, allow_pickle=False, **asdict(self))
        write_whole(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read an evaluation; nothing in the file is run.

        Raises:
            ValueError: if it holds none.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                values: dict[str, Any] = dict(kept)
            step, epoch = int(values.pop("step")), float(values.pop("epoch"))
            return cls(step, epoch, **values)
        except UNREADABLE as error:
            raise ValueError(
                f"{path}: expected an evaluation written by `fit`, `validate` or `test`, got "
                f"something else ({error}): remove it, or evaluate again"
            ) from error


def evaluation_path(folder: str | Path, step: int, split: str | None = None) -> Path:
    """Return the file of an evaluation.

    Args:
        folder: the run's.
        step: optimizer steps done.
        split: evaluated by a command of its own; None for the validations of `fit`.
    """
    name = f"step={step}.npz" if split is None else f"{split}-step={step}.npz"
    return Path(folder) / FOLDER / name


def read_evaluations(folder: str | Path) -> list[Evaluation]:
    """Read the validations of a run, the first one first; none of a run without.

    Args:
        folder: the run's.
    """
    found = [Evaluation.load(path) for path, _ in _of_a_fit(folder)]
    return sorted(found, key=lambda evaluation: evaluation.step)


def validations(folder: str | Path, metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics after each validation, and how many passes over the data were done.

    Args:
        folder: the run's.
        metrics: of the run, indexed by step.

    Returns:
        The rows with a validation loss, with ``passes`` beside: 0 before training, broken within an
        epoch. Where the run has not kept it whole, it is counted by :func:`passes_done`.
    """
    rows = metrics.dropna(subset=["val/loss"]) if "val/loss" in metrics else metrics.iloc[:0]
    kept = [_epoch(evaluation_path(folder, step)) for step in rows.index]
    return rows.assign(passes=pd.Series(kept, rows.index, float).fillna(passes_done(rows)))


def passes_done(rows: pd.DataFrame) -> pd.Series:
    """Count passes over the data: the k-th of n evaluations within epoch e comes after e + k/n.

    Args:
        rows: of evaluations, indexed by step, with the ``epoch`` under way, counted from 0. n is
            that of the epoch with the most, as the last one may not be over.

    >>> epochs = {"epoch": [np.nan, 0, 0, 1]}
    >>> passes_done(pd.DataFrame(epochs, index=[0, 5, 10, 15])).tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    epochs = rows.reindex(columns=["epoch"])["epoch"].where(rows.index > 0).astype(float)
    within = epochs.groupby(epochs)
    passes: pd.Series = epochs + (within.cumcount() + 1) / within.size().max()
    return passes.fillna(0)


def remove_evaluations_after(folder: str | Path, step: int) -> None:
    """Forget the validations that a run which goes on from a step will make again."""
    for path, done in _of_a_fit(folder):
        if done > step:
            path.unlink()


def _of_a_fit(folder: str | Path) -> Iterator[tuple[Path, int]]:
    for path in list((Path(folder) / FOLDER).glob("step=*.npz")):
        if match := OF_A_FIT.fullmatch(path.name):
            yield path, int(match[1])


def write_run_info(folder: str | Path, info: Mapping[str, Any]) -> None:
    """Write what the evaluations of a run share."""
    write_whole(Path(folder) / RUN_INFO, json.dumps(info, indent=2))


def read_run_info(folder: str | Path) -> dict[str, Any]:
    """Read what the evaluations of a run share.

    Raises:
        ValueError: if the folder is not that of a run which has evaluated.
    """
    path = Path(folder) / RUN_INFO
    if not path.exists():
        raise ValueError(
            f"run: expected {RUN_INFO} in {folder}, found none: is it a run's folder, and has the "
            "run come to its first validation?"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        info = None
    if not isinstance(info, dict) or not info.keys() >= SHARED:
        raise ValueError(
            f"{path}: expected what `fit` writes at its first validation, got something else: "
            "remove it, and resume the run or start it anew"
        )
    return info


def _epoch(path: Path) -> float:
    try:
        # One small member of the file.
        with np.load(path, allow_pickle=False) as kept:
            return float(kept["epoch"])
    except UNREADABLE:
        return float("nan")
