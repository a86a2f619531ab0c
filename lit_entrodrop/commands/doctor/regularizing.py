"""Checks of the regularizers, each of which runs alone in real training steps."""

import math

from lit_entrodrop.commands.doctor.check import Check, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.model_probe import Live
from lit_entrodrop.commands.doctor.regularizer_probe import WORDS, differ, named
from lit_entrodrop.commands.doctor.watching import strength

FAR = 0.25  # of the expected drop rate, beside four standard errors


def curricula(live: Live) -> Check:
    """Look for regularizers whose strength is 0 throughout."""
    strengths = {name: strength(regularizer) for name, regularizer in named(live.module)}
    if not strengths:
        return passed("no regularizer is configured")
    idle = [name for name, (value, _) in strengths.items() if value == 0]
    if idle:
        return warned(
            f"the strength of {', '.join(idle)} is 0 for the whole run",
            "raise its curriculum, or leave the regularizer out",
        )
    told = (
        f"{name} reaches {value:.3g}" if value is not None else f"{name} has no curriculum"
        for name, (value, _) in strengths.items()
    )
    return passed(", ".join(told))


def masks_are_applied(live: Live) -> Check:
    """Look at what each regularizer changes in a training step at its full strength."""
    told, broken, idle = [], [], []
    for trial in live.trials:
        told.append(trial.describe())
        reaches = differ(trial.loss, trial.plain)
        if not math.isfinite(trial.loss):
            broken.append(f"{trial.name} makes the loss {trial.loss}")
        elif trial.changes and not reaches:
            broken.append(f"what {trial.name} changes does not reach the loss")
        elif not reaches and not trial.later:
            idle.append(trial.name)
    found = "; ".join([*told, *broken]) or "no regularizer is at work"
    if broken:
        return failed(found, "look at the hooks of the regularizer, and at the model's embeddings")
    if idle:
        return warned(
            f"{found}: {', '.join(idle)} changes nothing",
            "look at its settings, and whether model and text have what it works on, such as "
            "dropout, or documents that are long enough",
        )
    return passed(found)


def drop_rates(live: Live) -> Check:
    """Compare the share of tokens that are dropped with what the settings promise."""
    told, far = [], []
    for trial in live.trials:
        rate = trial.watched.metrics.get("drop_rate")
        # What is dropped in a further pass is no matter of the strength.
        if rate is None or trial.strength is None or (rate > 0 and not trial.changes_inputs):
            continue
        expected = trial.strength * getattr(trial.regularizer, "quantile", 1.0)
        told.append(f"{trial.name} drops {rate:.1%} ({expected:.1%} expected)")
        draws = live.batch["input_ids"]
        # A word is dropped wherever it stands.
        by_word = getattr(trial.regularizer, "granularity", None) == "row"
        count = (draws.unique() if by_word else draws).numel()
        error = math.sqrt(max(expected * (1 - expected), 0.0) / count)
        if abs(rate - expected) > FAR * expected + 4 * error:
            far.append(trial.name)
    found = ", ".join(told) or "no regularizer tells a drop rate"
    if far:
        return warned(
            found,
            f"{', '.join(far)}: few tokens of short documents can be dropped, or entropies are "
            "unknown; compare methods by the drop rates in metrics.csv",
        )
    return passed(found)


def special_tokens_are_protected(live: Live) -> Check:
    """Look for special tokens and padding that a regularizer alters or counts."""
    wrong = [
        f"{trial.name} alters {WORDS[hook]} of {count:,} special, padding or uncounted tokens"
        for trial in live.trials
        for hook, count in trial.watched.protected_changes().items()
    ]
    if wrong:
        return failed("; ".join(wrong), "alter only step.alterable, and weigh only step.valid")
    return passed("ids and embeddings of special tokens and padding stay as they are")


REGULARIZERS = Theme(
    "regularizers", (curricula, masks_are_applied, drop_rates, special_tokens_are_protected)
)
