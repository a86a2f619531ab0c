"""A diagnosis in plain language: the finding, its evidence and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_entrodrop.evaluation.diagnosis.epoch_drops import EpochDrops
from lit_entrodrop.evaluation.diagnosis.overfitting import OverfittingVerdict

ALL = "all"
MORE_DOCUMENTS = (
    "If the validation split has a single document, raise data.validation, or write <|endoftext|> "
    "between the documents of a text file."
)


@dataclass(frozen=True)
class Explanation:
    """A diagnosis in plain language.

    Attributes:
        headline: Finding, without a final period.
        evidence: Sentences with the numbers behind it; the first continues the headline.
        advice: Remedy; empty if none is needed.
    """

    headline: str
    evidence: list[str]
    advice: str = ""

    @property
    def sentences(self) -> list[str]:
        """Finding, evidence and advice as sentences."""
        first, *others = self.evidence
        start = f"{self.headline}: {first[0].lower()}{first[1:]}"
        return [start, *others, *filter(None, [self.advice])]


def explain(
    verdicts: Mapping[str, OverfittingVerdict],
    worst: str | None,
    last_epoch: float,
    regularized: bool,
    epoch_drops: EpochDrops | None = None,
) -> Explanation:
    """Explain the verdicts on a run; the arguments are the attributes of its ``Diagnosis``."""
    whole = verdicts[ALL]
    if whole.kind == "unknown":
        needed = "At least two evaluations of two or more validation documents are needed."
        return Explanation(
            "Too little data to judge whether the model overfits", [needed], MORE_DOCUMENTS
        )
    if whole.kind == "diverges":
        return _divergence(whole)
    if not whole.overfits and worst is None:
        return Explanation(f"No overfitting shown up to epoch {last_epoch:.3g}", [_no_rise(whole)])
    evidence = []
    if whole.overfits:
        headline = f"The model overfits from epoch {whole.onset_epoch:.3g}"
        evidence.append(_rise("Its", whole))
    if worst is not None:
        start = f"{tokens_of(worst)} overfit"
        onset = f"from epoch {verdicts[worst].onset_epoch:.3g}"
        if whole.overfits:
            evidence.append(f"{start} most, {onset}: {_rise('their', verdicts[worst])}")
        else:
            headline = f"{start} {onset}, all tokens together do not"
            evidence.append(_rise("Their", verdicts[worst]))
    if spared := [n for n, verdict in verdicts.items() if verdict.kind == "holds" and n != ALL]:
        evidence.append(f"{tokens_of(*spared)} do not overfit so far.")
    if epoch_drops and epoch_drops.shown:
        evidence.append(
            f"From one epoch to the next the training loss drops by {epoch_drops.mean:.3f} more "
            "than its slope explains, on average: the model recognizes text it has seen."
        )
    return Explanation(headline, evidence, _advice(whole, regularized))


def tokens_of(*buckets: str) -> str:
    """Name the tokens of some buckets.

    >>> tokens_of("low", "mid"), tokens_of("bucket_1")
    ('Low- and mid-entropy tokens', 'Tokens of bucket 1')
    """
    if any(name.startswith("bucket_") for name in buckets):
        numbers = [name.removeprefix("bucket_") for name in buckets]
        return f"Tokens of bucket{'s' * (len(numbers) > 1)} {enumeration(numbers)}"
    adjectives = [*(f"{name}-" for name in buckets[:-1]), f"{buckets[-1]}-entropy"]
    return f"{enumeration(adjectives)} tokens".capitalize()


def enumeration(names: Sequence[str]) -> str:
    """Join names for a sentence.

    >>> enumeration(["a"]), enumeration(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _rise(whose: str, verdict: OverfittingVerdict) -> str:
    low, high = verdict.rise_interval
    sentence = (
        f"{whose} validation loss has risen by {verdict.rise:.3f} nats per token (95% interval "
        f"{low:.3f} to {high:.3f}) above its lowest, {verdict.best_loss:.3f} after epoch "
        f"{verdict.best_epoch:.3g}"
    )
    if (change := verdict.clean_train_change) is None:
        return f"{sentence}."
    direction = "fell by" if change < 0 else "rose by only"
    return f"{sentence}, while the loss on training text {direction} {abs(change):.3f}."


def _no_rise(verdict: OverfittingVerdict) -> str:
    if verdict.rise <= 0:
        return f"The validation loss is at its lowest, {verdict.best_loss:.3f} nats per token."
    return (
        f"The validation loss is {verdict.rise:.3f} nats per token above its lowest "
        f"({verdict.best_loss:.3f} after epoch {verdict.best_epoch:.3g}); this rise is too small "
        "or too uncertain to count."
    )


def _divergence(verdict: OverfittingVerdict) -> Explanation:
    epoch = f"epoch {verdict.best_epoch:.3g}"
    evidence = (
        f"The validation loss has risen by {verdict.rise:.3f} nats per token since {epoch}, and "
        f"the loss on training text by {verdict.clean_train_change:.3f} as well."
    )
    advice = "Lower the learning rate, or lengthen its warm-up."
    return Explanation(f"Training diverges after {epoch}", [evidence], advice)


def _advice(whole: OverfittingVerdict, regularized: bool) -> str:
    stronger = (
        "train again with a stronger regularizer"
        if regularized
        else "train with the recipe for scarce text: --config configs/recipes/scarce.yaml"
    )
    if not whole.overfits:
        return f"All tokens together do not overfit; to protect this bucket, {stronger}."
    if whole.best_epoch == 0:
        return (
            "The model before training has a lower loss on this text than after any epoch: lower "
            "the learning rate, and check the data."
        )
    epoch = max(1, round(whole.best_epoch))
    return (
        f"Use checkpoints/best.ckpt (lowest loss, after epoch {whole.best_epoch:.3g}), train for "
        f"{epoch} epoch{'s' * (epoch > 1)} (--trainer.max_epochs {epoch}), or {stronger}."
    )
