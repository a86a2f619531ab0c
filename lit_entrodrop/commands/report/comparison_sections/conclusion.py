"""The finding of a comparison, the numbers behind it and what to do next."""

from collections.abc import Mapping, Sequence
from posixpath import normpath
from typing import Any

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering.formatting import LAST, LOSS
from lit_entrodrop.commands.report.run_sections.conclusion import export_command
from lit_entrodrop.evaluation.conclusion import Conclusion, NextStep
from lit_entrodrop.evaluation.diagnosis.explanation import enumeration
from lit_entrodrop.evaluation.statistics import OVER_DOCUMENTS, OVER_SEEDS
from lit_entrodrop.runs.criterion import best_value_of

MOST_NAMED = 2
MOST_SHOWN = 3
ENOUGH_SEEDS = 5
NO_DIFFERENCE, NOT_TESTED = "no difference shown", "not tested"
# Verb phrases for the last epoch compared with the best one, for one arm and for several.
AT_LAST = {
    "less": ("overfits less", "overfit less"),
    "more": ("overfits more", "overfit more"),
    "better": ("is better at the last epoch", "are better at the last epoch"),
    "worse": ("is worse at the last epoch", "are worse at the last epoch"),
}
Comparison = Mapping[str, Any]  # content of comparison.json
Contrast = Mapping[str, Any]  # one of its pairs of arms


def conclude_comparison(
    comparison: Comparison, runs: Sequence[RunRecord], location: str
) -> Conclusion:
    """Say which arm is better, how sure that is, and what to do.

    Args:
        comparison: Content of ``comparison.json``.
        runs: One run of each arm, in the order of the arms.
        location: Folder of the comparison, as commands name it.
    """
    if not comparison["contrasts"]:
        nothing = "Nothing is compared: there is only one arm"
        return Conclusion(nothing, "A comparison needs at least two arms.")
    return Conclusion(
        headline(comparison), _summary(comparison, runs), _next_steps(comparison, runs, location)
    )


def headline(comparison: Comparison) -> str:
    """State the finding of at least one pair of arms in a line, for the page and the terminal."""
    contrasts = _against_baseline(comparison)
    total, baseline = len(contrasts), contrasts[0]["against"]
    at_best: dict[str, list[str]] = {}
    at_last: dict[str, list[str]] = {}
    for each in contrasts:
        at_best.setdefault(each["verdict"], []).append(each["arm"])
        at_last.setdefault(_at_last(each, comparison["arms"]), []).append(each["arm"])
    at_last.pop("", None)
    when = " at the best epoch" if at_last else ""
    clauses = [
        f"{_who(arms, total, 'is', 'are')} {verdict} than {baseline}{when}"
        for verdict in ("better", "worse")
        if (arms := at_best.get(verdict))
    ]
    if arms := at_best.get(NO_DIFFERENCE):
        if clauses or at_last:
            whom = f" for {_who(arms, total)}" if clauses else ""
            clauses.append(f"no difference shown{whom}{when}")
        else:
            clauses.append(f"no difference from {baseline} shown")
    if arms := at_best.get(NOT_TESTED):
        clauses.append(f"the difference of {_who(arms, total)} from {baseline} is not tested")
    clauses += [f"{_who(arms, total, *AT_LAST[k])} than {baseline}" for k, arms in at_last.items()]
    decided = [
        each
        for each in comparison["contrasts"]
        if each["verdict"] in ("better", "worse") and each not in contrasts
    ]
    if len(decided) == 1:
        [found] = decided
        clauses.append(f"{found['arm']} is {found['verdict']} than {found['against']}")
    text = "; ".join(clauses)
    # A name is left as it is.
    return text[0].upper() + text[1:] if text.startswith(("no ", "the ")) else text


def _against_baseline(comparison: Comparison) -> list[Contrast]:
    contrasts = comparison["contrasts"]
    return [each for each in contrasts if not each["is_contrast"]] or contrasts[:1]


def _at_last(contrast: Contrast, arms: Mapping[str, Any]) -> str:
    best, last = (contrast["metrics"].get(name, {}) for name in (LOSS, LAST))
    verdict: str = last.get("verdict") or ""
    if verdict not in ("better", "worse") or verdict == contrast["verdict"]:
        return ""
    worse = contrast["against_arm"] if verdict == "better" else contrast["arm"]
    means = [arms[worse]["metrics"][name]["mean"] for name in (LOSS, LAST)]
    intervals = sorted(filter(None, (best.get("interval"), last["interval"])))
    # If they are apart, the change since the best epoch is not chance either.
    apart = len(intervals) == 2 and intervals[0][1] < intervals[1][0]
    if contrast["verdict"] == NO_DIFFERENCE and apart and means[1] > means[0]:
        return "less" if verdict == "better" else "more"
    return verdict


def _who(arms: Sequence[str], total: int, singular: str = "", plural: str = "") -> str:
    """Name arms, or count them, and add the verb.

    >>> _who(["a"], 5, "is", "are"), _who(["a", "b", "c"], 5, "is", "are")
    ('a is', '3 of 5 arms are')
    """
    names = f"{len(arms)} of {total} arms" if len(arms) > MOST_NAMED else enumeration(arms)
    return f"{names} {singular if len(arms) == 1 else plural}".rstrip()


def _summary(comparison: Comparison, runs: Sequence[RunRecord]) -> str:
    contrasts, arms = comparison["contrasts"], list(comparison["arms"])
    corpus = next((f" on {run.corpus}" for run in runs if run.corpus), "")
    over_documents = [c["samples"] for c in contrasts if c["method"] == OVER_DOCUMENTS]
    where = f"{over_documents[0]:,} documents of the " if over_documents else "the "
    who = enumeration(arms) if len(arms) <= MOST_SHOWN + 1 else f"{len(arms)} arms"
    shown = sorted(contrasts, key=_interest)[:MOST_SHOWN]
    against = [each for each in contrasts if each in shown and not each["is_contrast"]]
    sentences = [
        f"{who} were fine-tuned{corpus} with {_seeds(comparison['seeds'])} and compared by their "
        f"loss on {where}{comparison['split']} split.",
        *(_differences(against) if against else []),
        *(_contrast(each) for each in contrasts if each in shown and each["is_contrast"]),
    ]
    worth = [arm["sentence"] for arm in (comparison.get("ladder") or {"arms": {}})["arms"].values()]
    sentences += worth[:MOST_SHOWN]
    if len(shown) < len(contrasts):
        sentences.append(f"The table below has all {len(contrasts)} comparisons.")
    return " ".join([*sentences, *_certainty(contrasts)])


def _seeds(seeds: Sequence[int]) -> str:
    return f"one seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _interest(contrast: Contrast) -> tuple[bool, bool, float]:
    shown = contrast["verdict"] in ("better", "worse")
    return not contrast["is_contrast"], not shown, contrast["difference"]


def _differences(against: Sequence[Contrast]) -> list[str]:
    """Say how far arms are from the baseline at the best and at the last epoch."""
    best = enumeration([f"{_number(each)} for {each['arm']}" for each in against])
    sentences = [
        f"At the best epoch, the difference from {against[0]['against']} in nats per token (95% "
        f"interval) is {best}; below zero is better."
    ]
    last = [(each["metrics"].get(LAST), each["arm"]) for each in against]
    if numbers := [f"{_number(found)} for {arm}" for found, arm in last if found]:
        sentences.append(f"At the last epoch, it is {enumeration(numbers)}.")
    return sentences


def _contrast(contrast: Contrast) -> str:
    rates = contrast["drop_rates"]
    note = f" ({rates[0]:.1%} and {rates[1]:.1%} of the tokens dropped)" if all(rates) else ""
    numbers = f"{_number(contrast)} at the best epoch"
    if last := contrast["metrics"].get(LAST):
        numbers += f" and {_number(last)} at the last"
    return f"{contrast['arm']} minus {contrast['against']}{note} is {numbers}."


def _number(found: Mapping[str, Any]) -> str:
    if not found["interval"]:
        return signed(found["difference"])
    low, high = map(signed, found["interval"])
    return f"{signed(found['difference'])} ({low} to {high})"


def signed(value: float) -> str:
    """Round a difference; zero has no sign.

    >>> signed(-0.0583), signed(-0.0004)
    ('−0.058', '0.000')
    """
    text = f"{value:+.3f}".replace("-", "−")
    return text if round(value, 3) else text[1:]


def _certainty(contrasts: Sequence[Contrast]) -> list[str]:
    sentences = []
    methods = {each["method"] for each in contrasts}
    if OVER_DOCUMENTS in methods:
        sentences.append(
            "With one seed, the intervals cover other documents but not other seeds, which can "
            "change a result of this size."
        )
    if OVER_SEEDS in methods:
        sentences.append("The intervals cover other seeds.")
    if None in methods:
        sentences.append("Where no interval is given, nothing could be tested.")
    if any(each["verdict"] == NO_DIFFERENCE for each in contrasts):
        sentences.append("“No difference shown” does not mean equal.")
    return sentences


def _next_steps(comparison: Comparison, runs: Sequence[RunRecord], location: str) -> list[NextStep]:
    arms, seeds = comparison["arms"], comparison["seeds"]
    scores = {name: min(t["score"] for t in arm["trials"]) for name, arm in arms.items()}
    lowest = min(scores, key=lambda name: scores[name])
    # Runs that were made before are outside the folder of the comparison.
    folders = {
        name: [r["folder"] for r in arm["runs"] if r["folder"]] for name, arm in arms.items()
    }
    given = any(folder.startswith("..") for of_arm in folders.values() for folder in of_arm)
    again = (
        "" if given else f"lit-entrodrop compare --config MY_COMPARISON.yaml --output {location}"
    )
    steps = []
    if len(seeds) < ENOUGH_SEEDS:
        wanted = list(range(3 if len(seeds) < 3 else ENOUGH_SEEDS))
        steps.append(
            NextStep(
                f"Train every run with seeds {wanted}, then compare all of them."
                if given
                else f"Repeat with more seeds: set `seeds: {wanted}` in the config of this "
                "comparison and start it again. Finished runs are kept.",
                f"lit-entrodrop fit --config {runs[0].location}/config.yaml --seed_everything "
                f"{wanted[-1]} --trainer.default_root_dir {runs[0].location}-seed{wanted[-1]}"
                if given
                else again,
            )
        )
    if comparison["split"] != "test":
        steps.append(
            NextStep("Report on text not used for selection: set `data.test: 0.1` and train again.")
        )
    elif runs and all(_is_best_at_last(run) for run in runs):
        text = "Train longer: raise `trainer.max_epochs`. No arm overfits yet."
        steps.append(NextStep(text))
    best = best_value_of(comparison["selected_by"])
    if not folders[lowest]:
        text = f"{lowest} has {best}. To use its model, export it where its runs were trained."
        return [*steps, NextStep(text)]
    text = f"To use a model now, take that of {lowest}, which has {best}."
    folder = normpath(f"{location}/{folders[lowest][0]}")
    return [*steps, NextStep(text, export_command(folder))]


def _is_best_at_last(run: RunRecord) -> bool:
    curve = run.trained_loss()
    return len(curve) > 0 and curve.idxmin() == curve.index[-1]
