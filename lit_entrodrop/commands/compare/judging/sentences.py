"""Findings of a comparison as sentences."""

from collections.abc import Mapping

from lit_entrodrop.commands.compare.judging.analysis import ArmPair, Finding
from lit_entrodrop.commands.report.rendering.formatting import LAST, LOSS, difference

# Largest relative difference between two drop rates that count as matched.
RATE_TOLERANCE = 0.05


def sentence(pair: ArmPair, findings: Mapping[str, Finding]) -> str:
    """State the finding of a pair in a sentence."""
    finding = findings[LOSS]
    other = pair.second.arm
    if pair.is_matched:
        other = f"{other} at the same strength ({pair.second.name})"
    if finding.verdict in ("better", "worse"):
        text = f"{pair.first.arm} is {finding.verdict} than {other} at the best epoch"
    else:
        text = f"{pair.first.arm} and {other}: {finding.verdict} at the best epoch"
    text += f", difference {_with_interval(finding)}"
    if finding.p_corrected is not None:
        text += f", corrected p = {finding.p_corrected:.2g}"
    return f"{text}{_at_last_epoch(findings)}{_drop_rates(pair)}."


def _at_last_epoch(findings: Mapping[str, Finding]) -> str:
    # Training for a fixed budget, without validation, ends with the last epoch.
    finding = findings.get(LAST)
    if finding is None:
        return ""
    return f"; at the last epoch {finding.verdict}, difference {_with_interval(finding)}"


def _drop_rates(pair: ArmPair) -> str:
    rates = [trial.drop_rate for trial in (pair.first, pair.second)]
    if not pair.is_contrast or not all(rates):
        return ""
    text = f"{rates[0]:.1%} and {rates[1]:.1%} of the alterable tokens were dropped"
    if abs(rates[0] - rates[1]) <= RATE_TOLERANCE * max(rates):
        return f"; drop rates match: {text}"
    return f"; drop rates do not match: {text}"


def _with_interval(finding: Finding) -> str:
    return " ".join(difference(LOSS, finding.to_dict())).rstrip()
