"""What the curves in a log show, in plain sentences."""

from collections.abc import Iterator

import numpy as np

from lit_entrodrop.commands.diagnose.curves import Curve, DiagnosedLog
from lit_entrodrop.commands.diagnose.next_steps import next_steps
from lit_entrodrop.evaluation.conclusion import Conclusion
from lit_entrodrop.evaluation.diagnosis.epoch_drops import LEAST_ROWS, EpochDrops
from lit_entrodrop.evaluation.diagnosis.loss_curve import LEAST_RISE, CurveVerdict
from lit_entrodrop.evaluation.statistics import CONFIDENCE

NO_INTERVAL = (
    "The log has no losses of documents, so there is no interval for other validation text: the "
    "confidence is lower than that of `report`, which has them."
)


def conclude(found: DiagnosedLog) -> Conclusion:
    """State whether a model overfits, since when, with what confidence, and what to do."""
    if not found.validations:
        start, summary = _without_validation(found)
        return Conclusion(_broken(found) or start, summary, next_steps(found))
    curve, verdict = found.validations[0], found.verdicts[0]
    numbers = " ".join([*_numbers(curve, verdict), *_training(found)])
    sentences = [numbers, *_stairs(found), *_others(found)]
    start = _broken(found) or headline(curve, verdict)
    return Conclusion(start, "\n".join([*sentences, NO_INTERVAL]), next_steps(found))


def _broken(found: DiagnosedLog) -> str:
    if (curve := found.broken) is None:
        return ""
    return f"Training broke down: `{curve.name}` is not finite from step {curve.broken:g}"


def headline(curve: Curve, verdict: CurveVerdict) -> str:
    """Return the finding on a validation loss, without a final period."""
    best = curve.short_place(verdict.best)
    if verdict.onset is not None:
        onset = curve.short_place(verdict.onset)
        if verdict.kind == "overfits":
            return f"The model overfits from {onset}"
        return f"The validation loss rises from {onset}, with too few evaluations to be sure"
    if verdict.kind == "diverges":
        return f"Training diverges after {best}"
    if verdict.kind == "unknown":
        return "Too early to judge: one evaluation so far"
    if verdict.rise <= 0:
        return "No overfitting so far: the validation loss is lowest at the end"
    return f"No overfitting shown up to {curve.short_place(-1)}"


def _numbers(curve: Curve, verdict: CurveVerdict) -> Iterator[str]:
    lowest, count = curve.losses[verdict.best], len(curve)
    name, best = f"The validation loss (`{curve.name}`)", curve.place(verdict.best)
    if count == 1:
        yield f"{name} is {lowest:.3f} at {best}."
        return
    if verdict.rise <= 0:
        yield f"{name} is lowest at the last of {count} evaluations: {lowest:.3f} at {best}."
    else:
        yield (
            f"{name} was lowest at {best}, {lowest:.3f}, and is {curve.losses[-1]:.3f} at "
            f"{curve.place(-1)}, the last of {count} evaluations: {verdict.rise:.3f} or "
            f"{verdict.rise / abs(lowest):.1%} higher."
        )
        yield _certainty(count, verdict)


def _certainty(count: int, verdict: CurveVerdict) -> str:
    if verdict.p_value is None:
        return f"{count} evaluations do not show how much they scatter, so nothing is tested."
    sentence = (
        f"Evaluations scatter by about {verdict.scatter:.2g} around a smooth curve; by chance, a "
        f"flat curve with such scatter rises as much with probability {verdict.p_value:.2g}."
    )
    if verdict.kind == "rises":
        return f"{sentence} That is too likely for a verdict; {count} evaluations are few."
    if verdict.kind == "holds":
        reason = (
            f"A rise below {LEAST_RISE:.0%} does not count."
            if verdict.p_value < 1 - CONFIDENCE
            else "This is within what scatter explains."
        )
        return f"{sentence} {reason}"
    return sentence


def _training(found: DiagnosedLog) -> Iterator[str]:
    if not len(found.training):
        yield "There is no training loss in the log, so the gap to it is unknown."
        return
    validation, verdict = found.validations[0], found.verdicts[0]
    around = found.training_at(validation)
    if not len(around) or not np.isfinite(around[-1]):
        return
    gap = validation.losses[-1] - around[-1]
    sentence = f"At the end the training loss is {around[-1]:.3f}, a gap of {gap:+.3f}"
    if (change := verdict.training_change) is not None and verdict.rise > 0:
        moved = "fallen" if change < 0 else "risen"
        sentence += f"; it has {moved} by {abs(change):.3f} since the best evaluation"
    yield f"{sentence}.".replace("-", "−")


def _stairs(found: DiagnosedLog) -> Iterator[str]:
    if not len(found.training):
        return
    drops = found.drops
    if drops is None:
        yield f"Stair steps between epochs cannot be measured: {_unmeasured(found)}."
    elif drops.shown:
        yield (
            f"The training loss has stair steps: at the start of each epoch it drops, beyond its "
            f"slope, by {_size(drops)}. The model recognizes text it has seen: it memorizes."
        )
    elif drops.from_order:
        yield (
            f"At the start of each epoch the training loss drops, by {_size(drops)}, but that need "
            "not be memorization: the text seems to have the same order in each epoch."
        )
    else:
        yield f"The training loss has no stair steps between epochs: {_size(drops)}."


def _size(drops: EpochDrops) -> str:
    count = len(drops.drops)
    boundaries = f"{count} boundar{'ies' if count > 1 else 'y'}"
    p_value = "p < 0.001" if drops.p_value < 0.001 else f"p = {drops.p_value:.2g}"
    return f"{drops.mean:.3f} ± {drops.error:.3f} ({boundaries}, {p_value})".replace("-", "−")


def _unmeasured(found: DiagnosedLog) -> str:
    if not found.training.by_epoch:
        return "the epochs are unknown"
    if found.training.epochs[-1] <= 1.01:
        return "the log covers one epoch"
    return f"each epoch needs {LEAST_ROWS} values of the training loss, so log it more often"


def _others(found: DiagnosedLog) -> Iterator[str]:
    for curve, verdict in list(zip(found.validations, found.verdicts, strict=True))[1:4]:
        finding = headline(curve, verdict)
        yield f"By `{curve.name}`: {finding[0].lower()}{finding[1:]}."
    if (more := len(found.validations) - 4) > 0:
        yield f"{more} more losses on held-out text are not listed here."


def _without_validation(found: DiagnosedLog) -> tuple[str, str]:
    curve = found.training
    sentences = [
        f"There is no validation loss in the log. The training loss (`{curve.name}`) went from "
        f"{curve.losses[0]:.3f} to {curve.losses[-1]:.3f} at {curve.place(-1)}.",
        *_stairs(found),
        "A falling training loss fits both a model that learns and one that memorizes; even a "
        "training loss near zero does not say how the model does on new text.",
    ]
    start = "The training loss alone cannot show overfitting"
    if found.drops and found.drops.shown:
        start = "The model memorizes; without a validation loss, overfitting cannot be judged"
    return start, "\n".join(sentences)
