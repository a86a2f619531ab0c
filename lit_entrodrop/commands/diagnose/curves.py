"""The loss curves in a log."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.commands.diagnose.columns import loss_columns
from lit_entrodrop.commands.diagnose.logs import TrainingLog
from lit_entrodrop.commands.diagnose.positions import positions
from lit_entrodrop.evaluation.diagnosis.epoch_drops import EpochDrops, epoch_drops
from lit_entrodrop.evaluation.diagnosis.loss_curve import CurveVerdict, judge_curve

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
# Epochs in logs are rounded.
ROUNDING = 5e-3


@dataclass(frozen=True, eq=False)
class Curve:
    """A loss over training.

    Attributes:
        name: Logged name.
        steps: Step of each loss, increasing, ``[N]``.
        epochs: Passes over the data at each loss, ``[N]``; NaN where unknown.
        losses: Finite losses, ``[N]``.
        broken: Step from which on no loss is finite; None if the last one is.
    """

    name: str
    steps: Floats
    epochs: Floats
    losses: Floats
    broken: float | None = None

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def by_epoch(self) -> bool:
        """Whether the epochs are known."""
        return bool(np.isfinite(self.epochs).all())

    def place(self, index: int) -> str:
        """Name a position: ``epoch 2 (step 80)``, or ``step 80`` where epochs are unknown."""
        step = f"step {self.steps[index]:,.0f}"
        return f"epoch {self.epochs[index]:.3g} ({step})" if self.by_epoch else step

    def short_place(self, index: int) -> str:
        """Name a position without the step, where epochs are known."""
        return self.place(index).partition(" (")[0]


@dataclass(frozen=True, eq=False)
class DiagnosedLog:
    """The curves in a log, and what they show.

    Attributes:
        log: The log.
        training: Training loss; without entries if there is none.
        validations: Validation losses; the first decides the headline.
        notes: Sentences on what was unusual in the log.
        broken: A loss that is not finite at the end; None if there is none.
    """

    log: TrainingLog
    training: Curve
    validations: list[Curve]
    notes: list[str]
    broken: Curve | None = None

    @cached_property
    def verdicts(self) -> list[CurveVerdict]:
        """Verdict on each validation loss."""
        return [judge_curve(each.losses, self.training_at(each)) for each in self.validations]

    @cached_property
    def drops(self) -> EpochDrops | None:
        """Drops of the training loss between epochs; None if they cannot be measured."""
        if not self.training.by_epoch or not len(self.training):
            return None
        numbers = np.ceil(self.training.epochs - ROUNDING)
        return epoch_drops(np.maximum(numbers, 1), self.training.losses)

    def training_at(self, validation: Curve) -> Floats:
        """Return the mean training loss since the evaluation before each; NaN if unknown."""
        edges = np.searchsorted(self.training.steps, validation.steps, side="right")
        parts = np.split(self.training.losses, edges)[:-1]
        return np.array([part.mean() if len(part) else np.nan for part in parts])


def read_curves(
    log: TrainingLog,
    training: str | None = None,
    validation: str | None = None,
    steps_per_epoch: float | None = None,
) -> DiagnosedLog:
    """Find the losses in a log.

    Args:
        log: The log.
        training: Name of the training loss, if it should not be guessed.
        validation: Name of the validation loss, if it should not be guessed.
        steps_per_epoch: Steps of an epoch, where the log has no epochs.

    Raises:
        ValueError: If there is no loss.
    """
    try:
        columns = loss_columns(list(map(str, log.table.columns)), training, validation)
    except ValueError as error:
        raise ValueError(f"{log.name}: {error}") from error
    places, notes = positions(log.table, log.trainer.counts_epochs, steps_per_epoch)
    notes = [*log.notes, *notes]
    validations = [_curve(log, places, name, notes) for name in columns.validations]
    trained = _curve(log, places, columns.training, notes)
    broken = next((each for each in (trained, *validations) if each.broken is not None), None)
    validations = [each for each in validations if len(each)]
    if not len(trained) and not validations:
        raise ValueError(
            f"{log.name}: expected finite losses, found none in "
            f"{', '.join(filter(None, [columns.training, *columns.validations]))}"
        )
    return DiagnosedLog(log, trained, validations, notes, broken)


def _curve(log: TrainingLog, places: "pd.DataFrame", name: str | None, notes: list[str]) -> Curve:
    """Return the finite losses of a name, the last for each step; note what was left out."""
    import pandas as pd

    if name is None:
        nothing = np.empty(0)
        return Curve("", nothing, nothing, nothing)
    logged = log.table[name].dropna()
    rows = places.loc[logged.index].assign(loss=pd.to_numeric(logged, errors="coerce"))
    if lost := int(rows["step"].isna().sum()):
        notes.append(f"{lost} of {len(rows)} values of `{name}` have no step and are left out.")
        rows = rows.dropna(subset=["step"])
    if not rows["step"].is_monotonic_increasing:
        notes.append(
            f"The values of `{name}` are not in the order of their steps; they are sorted."
        )
    last = rows.drop_duplicates("step", keep="last").sort_values("step")
    if repeated := len(rows) - len(last):
        notes.append(
            f"{repeated} of {len(rows)} values of `{name}` are repeated later for the same step, "
            "as by a resumed run; the last is used."
        )
    finite = last[np.isfinite(last["loss"])]
    broken = None
    if unusable := len(last) - len(finite):
        notes.append(
            f"{unusable} of {len(last)} values of `{name}` are not finite and are left out."
        )
        after = last["step"] > (finite["step"].max() if len(finite) else -np.inf)
        broken = float(last["step"][after].min()) if after.any() else None
    steps, epochs, losses = (finite[each].to_numpy(float) for each in ("step", "epoch", "loss"))
    return Curve(name, steps, epochs, losses, broken)
