"""Evaluations in a run folder: losses by document, entropy histogram and passage scores.

`fit` writes ``evaluations/step=N.npz`` at each validation, ``evaluations/NAME/step=N.npz`` for each
named evaluation set, and shared values to ``run.json``.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.runs.writing import write_whole

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "evaluations"
FILES = "step=*.npz"  # of validations during `fit`
RUN_INFO = "run.json"
SHARED = {"buckets", "passages", "provenance", "fingerprints"}
# Exceptions from reading a truncated, altered or unrelated file.
UNREADABLE = (OSError, ValueError, TypeError, LookupError, EOFError, BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of a model on a split of D documents, with K entropy buckets.

    Attributes:
        step: Number of optimizer steps.
        epoch: Passes over the training data; 0 before training, a fraction within an epoch.
        nll: Summed loss of each document, ``[D, 1 + K]`` fp64 nats; column 0 covers all tokens, the
            others one bucket each, from low to high entropy.
        tokens: Number of tokens in each sum, ``[D, 1 + K]`` int64.
        histogram: Number of tokens by entropy of the model's prediction, ``[bins]`` int64.
        histogram_edges: Edges of the bins, ``[bins + 1]`` fp64 nats.
        passage_nll: Loss of each token of some passages, ``[P, T]`` fp32 nats; NaN if a token does
            not count.
        passage_entropy: Entropy of the same predictions, ``[P, T]`` fp32 nats.
        edges: Entropies between the buckets, ``[K - 1]`` fp64 nats; empty if unknown.
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
        """Write the evaluation to a file, atomically."""
        file = BytesIO()
        np.savez_compressed(file, allow_pickle=False, **asdict(self))
        write_whole(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read an evaluation, without running code from the file.

        Raises:
            ValueError: If the file is not an evaluation.
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


def evaluation_path(
    folder: str | Path, step: int, split: str | None = None, evaluation_set: str = ""
) -> Path:
    """Return the path of an evaluation.

    ``split`` is the split that `validate` or `test` evaluated; None for validations during `fit`.
    ``evaluation_set`` is the name of an evaluation set; empty for the split itself.
    """
    name = f"step={step}.npz" if split is None else f"{split}-step={step}.npz"
    return Path(folder) / FOLDER / evaluation_set / name


def read_evaluations(folder: str | Path, evaluation_set: str = "") -> list[Evaluation]:
    """Read the validations during `fit` from a run folder, ordered by step.

    ``evaluation_set`` is the name of an evaluation set; empty for the validation split.
    """
    files = (Path(folder) / FOLDER / evaluation_set).glob(FILES)
    return [Evaluation.load(path) for _, path in sorted(_steps(files))]


def validations(folder: str | Path, metrics: "pd.DataFrame") -> "pd.DataFrame":
    """Return the metrics of a run, indexed by step, after each validation.

    A column ``passes`` is added: passes over the data, 0 before training, a fraction within an
    epoch. If an evaluation file is missing or damaged, :func:`passes_done` estimates it.
    """
    rows = metrics.dropna(subset=["val/loss"]) if "val/loss" in metrics else metrics.iloc[:0]
    kept = [_epoch(evaluation_path(folder, step)) for step in rows.index]
    import pandas as pd

    return rows.assign(passes=pd.Series(kept, rows.index, float).fillna(passes_done(rows)))


def passes_done(rows: "pd.DataFrame") -> "pd.Series":
    """Estimate passes over the data: the k-th of n evaluations in epoch e comes after e + k/n.

    n is the largest number of evaluations in an epoch, as the last epoch may be incomplete.

    >>> import pandas as pd
    >>> epochs = {"epoch": [np.nan, 0, 0, 1]}
    >>> passes_done(pd.DataFrame(epochs, index=[0, 5, 10, 15])).tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    epochs = rows.reindex(columns=["epoch"])["epoch"].where(rows.index > 0).astype(float)
    within = epochs.groupby(epochs)
    passes: pd.Series = epochs + (within.cumcount() + 1) / within.size().max()
    return passes.fillna(0)


def remove_evaluations_after(folder: str | Path, step: int) -> None:
    """Delete the validations after a step, which a run resumed there repeats."""
    for done, path in _steps((Path(folder) / FOLDER).rglob(FILES)):
        if done > step:
            path.unlink()


def _steps(files: Iterable[Path]) -> Iterator[tuple[int, Path]]:
    for path in files:
        if (step := path.stem.removeprefix("step=")).isdecimal():
            yield int(step), path


def write_run_info(folder: str | Path, info: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    write_whole(Path(folder) / RUN_INFO, json.dumps(info, indent=2))


def read_run_info(folder: str | Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    path = Path(folder) / RUN_INFO
    if not path.exists():
        raise ValueError(
            f"run: expected {RUN_INFO} in {folder}, found none: use a run folder, after the first "
            "validation of the run"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        info = None
    if not isinstance(info, dict) or not info.keys() >= SHARED:
        raise ValueError(
            f"{path}: expected the file that `fit` writes before its first validation, got "
            "something else: remove it, then resume or restart the run"
        )
    return info


def _epoch(path: Path) -> float:
    try:
        # Reads only this small member of the file.
        with np.load(path, allow_pickle=False) as kept:
            return float(kept["epoch"])
    except UNREADABLE:
        return float("nan")
