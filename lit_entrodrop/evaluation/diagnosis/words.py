"""A diagnosis in plain words."""

from collections.abc import Mapping, Sequence

from lit_entrodrop.evaluation.diagnosis.overfitting import Verdict

ALL = "all"
# Less is within what a learning rate or a batch makes, nats per token.
LEAST_STAIR = 0.05


def in_words(
    verdicts: Mapping[str, Verdict],
    worst: str | None,
    last_epoch: float,
    regularized: bool,
    epoch_drops: Sequence[float] = (),
) -> list[str]:
    """Say what is found, and what to do.

    Args:
        verdicts: of all tokens (``all``) and of each entropy bucket.
        worst: the bucket that overfits most, if any does.
        last_epoch: passes over the data at the last evaluation.
        regularized: whether a regularizer is at work.
        epoch_drops: stairs of the training loss between epochs, nats per token.

    Returns:
        Sentences.
    """
    whole = verdicts[ALL]
    if whole.kind == "unknown":
        return ["There are too few evaluations or documents to tell whether the model overfits."]
    if whole.kind == "diverges":
        return [_diverges(whole)]
    told = [name for name in (ALL, worst) if name and verdicts[name].overfits]
    if not told:
        return [_holds(whole, last_epoch)]
    sentences = [_overfits(name, verdicts[name]) for name in told]
    if spared := [n for n, verdict in verdicts.items() if verdict.kind == "holds" and n != ALL]:
        sentences.append(f"{tokens_of(*spared)} do not, so far.")
    if epoch_drops and (stair := sum(epoch_drops) / len(epoch_drops)) >= LEAST_STAIR:
        sentences.append(
            f"From one epoch to the next the training loss falls by {stair:.3f} beyond its slope, "
            "on average: text is recognised."
        )
    return [*sentences, _advice(whole, regularized)]


def tokens_of(*buckets: str) -> str:
    """Name the tokens of some buckets.

    >>> tokens_of("low", "mid"), tokens_of("bucket_1")
    ('Low- and mid-entropy tokens', 'Tokens of bucket 1')
    """
    if any(name.startswith("bucket_") for name in buckets):
        numbers = [name.removeprefix("bucket_") for name in buckets]
        return f"Tokens of bucket{'s' * (len(numbers) > 1)} {_listed(numbers)}"
    words = [*(f"{name}-" for name in buckets[:-1]), f"{buckets[-1]}-entropy"]
    return f"{_listed(words)} tokens".capitalize()


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _overfits(name: str, verdict: Verdict) -> str:
    who = "The model overfits" if name == ALL else f"{tokens_of(name)} overfit most,"
    whose = "its" if name == ALL else "their"
    low, high = verdict.rise_interval
    sentence = (
        f"{who} from epoch {verdict.onset_epoch:.3g} on: {whose} validation loss has risen by "
        f"{verdict.rise:.3f} nats per token (95 % interval {low:.3f} to {high:.3f}) above its "
        f"lowest, {verdict.best_loss:.3f} after epoch {verdict.best_epoch:.3g}"
    )
    if (change := verdict.clean_train_change) is None:
        return f"{sentence}."
    way = "fell by" if change < 0 else "rose by only"
    return f"{sentence}, while that on training text {way} {abs(change):.3f}."


def _holds(verdict: Verdict, last_epoch: float) -> str:
    start = f"No overfitting is shown up to epoch {last_epoch:.3g}: the validation loss is"
    if verdict.rise <= 0:
        return f"{start} at its lowest, {verdict.best_loss:.3f} nats per token."
    return (
        f"{start} {verdict.rise:.3f} nats per token above its lowest ({verdict.best_loss:.3f} "
        f"after epoch {verdict.best_epoch:.3g}), too little or too unsure to count."
    )


def _diverges(verdict: Verdict) -> str:
    return (
        f"Training diverges: the validation loss has risen by {verdict.rise:.3f} nats per token "
        f"since epoch {verdict.best_epoch:.3g}, and that on training text by "
        f"{verdict.clean_train_change:.3f} as well. Lower the learning rate, or lengthen its "
        "warm-up."
    )


def _advice(whole: Verdict, regularized: bool) -> str:
    stronger = (
        "train again with a stronger regularizer"
        if regularized
        else "train under a regularizer: --config configs/regularizers/entrodrop.yaml"
    )
    if not whole.overfits:
        return f"All tokens together hold; to spare these, {stronger}."
    if whole.best_epoch == 0:
        return (
            "The model before training does better on this text than after any epoch: lower the "
            "learning rate, and look at the data."
        )
    epoch = max(1, round(whole.best_epoch))
    return (
        f"Take checkpoints/best.ckpt (lowest loss, after epoch {whole.best_epoch:.3g}), train for "
        f"{epoch} epoch{'s' * (epoch > 1)} (--trainer.max_epochs {epoch}), or {stronger}."
    )
