"""Checks of the regularizers; each runs alone in real training steps."""

import math

from lit_entrodrop.commands.doctor.check import CheckResult, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.regularizer_probe import HOOK_TARGETS, RegularizerProbe, strength

FAR = 0.25  # of the expected drop rate, in addition to four standard errors


def curricula(probe: RegularizerProbe) -> CheckResult:
    """Look for regularizers whose strength is 0 in the whole run."""
    strengths = {name: strength(each)[0] for name, each in probe.model.regularizers.items()}
    if not strengths:
        return passed("no regularizer is configured")
    idle = [name for name, value in strengths.items() if value == 0]
    if idle:
        return warned(
            f"the strength of {', '.join(idle)} is 0 in the whole run",
            "raise its curriculum, or remove the regularizer",
        )
    reached = (
        f"{name} reaches {value:.3g}" if value is not None else f"{name} has no curriculum"
        for name, value in strengths.items()
    )
    return passed(", ".join(reached))


def masks_are_applied(probe: RegularizerProbe) -> CheckResult:
    """Check that each regularizer changes a training step at its full strength."""
    effects, broken, idle = [], [], []
    for effect in probe.effects:
        effects.append(effect.describe())
        if not math.isfinite(effect.loss):
            broken.append(f"{effect.name} makes the loss {effect.loss}")
        elif effect.changes and not effect.changes_loss:
            broken.append(f"what {effect.name} changes does not reach the loss")
        elif not effect.changes_loss and not effect.acts_later:
            idle.append(effect.name)
    found = "; ".join([*effects, *broken]) or "no regularizer is active"
    if broken:
        return failed(found, "check the hooks of the regularizer, and the model's embeddings")
    if idle:
        return warned(
            f"{found}: {', '.join(idle)} changes nothing",
            "check its settings, and whether model and text have what it acts on, such as "
            "dropout, or documents that are long enough",
        )
    return passed(found)


def drop_rates(probe: RegularizerProbe) -> CheckResult:
    """Compare the share of tokens that are dropped with the share that the settings imply."""
    rates, far = [], []
    for effect in probe.effects:
        rate = effect.metrics.get("drop_rate")
        # Drops in a second pass do not depend on the strength.
        if rate is None or effect.strength is None or (rate > 0 and not effect.changes_inputs):
            continue
        expected = effect.strength * getattr(effect.regularizer, "quantile", 1.0)
        rates.append(f"{effect.name} drops {rate:.1%} ({expected:.1%} expected)")
        draws = probe.model.batch["input_ids"]
        # Rows of the embedding table are dropped for all positions of a token id together.
        by_row = getattr(effect.regularizer, "granularity", None) == "row"
        count = (draws.unique() if by_row else draws).numel()
        error = math.sqrt(max(expected * (1 - expected), 0.0) / count)
        if abs(rate - expected) > FAR * expected + 4 * error:
            far.append(effect.name)
    found = ", ".join(rates) or "no regularizer logs a drop rate"
    if far:
        return warned(
            found,
            f"{', '.join(far)}: few tokens of short documents can be dropped, or entropies are "
            "unknown; compare methods by the drop rates in metrics.csv",
        )
    return passed(found)


def special_tokens_are_protected(probe: RegularizerProbe) -> CheckResult:
    """Look for special tokens and padding that a regularizer alters or weights."""
    wrong = [
        f"{effect.name} alters {HOOK_TARGETS[hook]} of {count:,} special, padding or unlabeled "
        "tokens"
        for effect in probe.effects
        for hook, count in effect.protected_changes().items()
    ]
    if wrong:
        return failed("; ".join(wrong), "alter only step.alterable, and weight only step.valid")
    return passed("ids and embeddings of special tokens and padding are unchanged")


REGULARIZERS = Theme(
    "regularizers", (curricula, masks_are_applied, drop_rates, special_tokens_are_protected)
)
