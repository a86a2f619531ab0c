"""What to do about a diagnosis, in the terms of the trainer."""

from collections.abc import Iterator

import numpy as np

from lit_entrodrop.commands.diagnose.curves import DiagnosedLog
from lit_entrodrop.evaluation.conclusion import NextStep
from lit_entrodrop.evaluation.diagnosis.loss_curve import FEW_EVALUATIONS

BY_RECIPE = (
    "lit-entrodrop fit --config configs/base.yaml --config configs/model/qwen3_0.6b.yaml "
    "--config configs/recipes/scarce.yaml --data.corpus YOUR_TEXT"
)


def next_steps(found: DiagnosedLog) -> list[NextStep]:
    """Return one to four actions, the most useful first."""
    return [*_steps(found)][:4]


def _steps(found: DiagnosedLog) -> Iterator[NextStep]:
    trainer = found.log.trainer
    if found.drops and found.drops.from_order:
        yield NextStep("Shuffle the training text in each epoch.")
    if found.broken or (found.verdicts and found.verdicts[0].kind == "diverges"):
        yield NextStep("Lower the learning rate, for example to a third, or lengthen its warm-up.")
    if not found.validations:
        yield NextStep(f"Hold out 5 to 10% of the text and evaluate on it: {trainer.evaluate}.")
        return
    curve, verdict = found.validations[0], found.verdicts[0]
    if verdict.kind == "unknown" or len(curve) < FEW_EVALUATIONS:
        yield NextStep(f"Evaluate more often: {trainer.evaluate}.")
    if verdict.kind == "unknown":
        return
    if verdict.onset is not None or verdict.rise > 0:
        yield NextStep(_best_weights(found))
    if verdict.onset is not None:
        yield from _against_overfitting(found)
    elif np.ptp(curve.losses) == 0:
        yield NextStep(
            "The validation loss never changes: check that the learning rate is above 0, and that "
            "the evaluated weights are the trained ones."
        )
    elif verdict.kind == "holds" and verdict.rise <= 0:
        yield NextStep(
            "Train longer, for example twice as many epochs: the validation loss still falls."
        )


def _best_weights(found: DiagnosedLog) -> str:
    curve, trainer = found.validations[0], found.log.trainer
    best = found.verdicts[0].best
    text = f"Use the weights of {curve.place(best)}"
    checkpoint = trainer.checkpoint.format(f"{curve.steps[best]:.0f}")
    folder = found.log.folder
    if checkpoint and any((each / checkpoint).is_dir() for each in (folder, folder.parent)):
        return f"{text}: the folder `{checkpoint}`."
    return f"{text}. To keep the best ones in the next run, {trainer.keep_best}."


def _against_overfitting(found: DiagnosedLog) -> Iterator[NextStep]:
    curve, verdict, trainer = found.validations[0], found.verdicts[0], found.log.trainer
    if verdict.best == 0:
        yield NextStep(
            "The first evaluation is already the best: lower the learning rate, and evaluate "
            "before and early in training."
        )
    elif curve.by_epoch:
        epochs = max(1, round(float(curve.epochs[verdict.best])))
        yield NextStep(
            f"Or train again for fewer epochs, so that the learning rate decays in time: "
            f"{trainer.epochs.format(epochs)}."
        )
    yield NextStep(
        "To train for more epochs without overfitting, use the recipe for scarce text. This run "
        "also measures losses of documents, and says on which tokens the model overfits.",
        BY_RECIPE,
    )
