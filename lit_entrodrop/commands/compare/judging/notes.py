"""Notes that qualify the results of a comparison."""

from collections import Counter
from collections.abc import Sequence

from lit_entrodrop.commands.compare.judging.analysis import ArmTrial, select_trials
from lit_entrodrop.evaluation.diagnosis.explanation import enumeration
from lit_entrodrop.evaluation.statistics import OVER_DOCUMENTS, OVER_SEEDS, Estimate
from lit_entrodrop.runs.criterion import best_value_of
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS

FEW_DOCUMENTS = 30


def split_notes(split: str, has_test_split: bool, trials: Sequence[ArmTrial]) -> list[str]:
    """State which split the losses are from, how runs were selected, and what that implies."""
    metrics = sorted({r.selected_by for trial in trials for r in trial.results.values()})
    own = metrics != [VALIDATION_LOSS]
    by = f"by {' and '.join(metrics)}" if own else "on the validation split"
    unlike = ["Not matched: the metrics that selected the best epoch differ."] * (len(metrics) > 1)
    if split == "test":
        return [
            "Losses are those of the test split; the best epoch and the strength were selected "
            f"{by}. Gap, clean-train loss, forgetting, memorization and losses on evaluation sets "
            "are those logged during training.",
            *unlike,
        ]
    why = (
        "The runs were not all evaluated on the test split (`lit-entrodrop test`)"
        if has_test_split
        else "There is no test split"
    )
    if own:
        found = f"{why}: losses are those of the validation split. The best epoch and the strength "
        return [f"{found}were selected {by}.", *unlike]
    return [
        f"{why}: losses are those of the validation split, on which the best epoch and the "
        "strength were selected. This makes best losses slightly too low for every arm, and more "
        "so for arms with more trials. Set data.test to a share, such as 0.1, for a test split."
    ]


def trial_notes(trials: Sequence[ArmTrial], split: str) -> list[str]:
    """State how strengths were selected, and what differs between the runs."""
    return [
        *_on_selection(trials, split),
        *_on_data(trials),
        *_on_idle(trials),
        *_on_averages(list(select_trials(trials).values())),
    ]


def _on_averages(trials: Sequence[ArmTrial]) -> list[str]:
    """State in which arms the averaged weights have the best evaluation."""
    counts = {
        trial.arm: f"{trial.arm} ({sum(found)} of {len(found)} runs)"
        for trial in trials
        if any(found := [result.averaged for result in trial.results.values()])
    }
    if not counts:
        return []
    return [
        f"The best losses are those of averaged weights in {', '.join(counts.values())}; the last "
        "losses are always those of the raw weights."
    ]


def method_notes(estimates: Sequence[Estimate]) -> list[str]:
    """State what the intervals cover."""
    methods = {estimate.method for estimate in estimates}
    samples = min(estimate.samples for estimate in estimates)
    notes = []
    if OVER_SEEDS in methods:
        notes.append(
            f"Intervals are over {samples} seeds (paired t). Few seeds show only large "
            "differences: no difference shown does not mean that there is none."
        )
    if OVER_DOCUMENTS in methods:
        few = f"; {samples} documents are few" if samples < FEW_DOCUMENTS else ""
        notes.append(
            "One seed: intervals are over documents (paired bootstrap). They are valid for these "
            f"trained models, not for other seeds{few}."
        )
    if None in methods:
        notes.append(
            "Not tested: with one seed, an interval needs the losses of the same documents in both "
            "runs, which these runs have not saved."
        )
    if any(e.method == OVER_SEEDS and e.p_value is None for e in estimates):
        notes.append("Not tested: all seeds differ by the same amount, so there is no spread.")
    if len(estimates) > 1 and methods != {None}:
        notes.append(
            f"p values are corrected for {len(estimates)} comparisons (Holm); intervals are not."
        )
    return notes


def _on_selection(trials: Sequence[ArmTrial], split: str) -> list[str]:
    counts = {trial.arm: sum(each.arm == trial.arm for each in trials) for trial in trials}
    most = max(counts.values())
    if most == 1:
        return []
    metric = next(iter(trials[0].results.values())).selected_by
    single = [name for name, count in counts.items() if count == 1]
    note = (
        f"Each arm has the strength with {best_value_of(metric)} of {most} trials "
        "(mean over seeds of each run's best)"
    )
    note = f"{note}; {', '.join(single)} had one trial." if single else f"{note}."
    seeds = {seed for trial in trials for seed in trial.results}
    selecting = sorted({seed for trial in trials for seed in trial.selection_seeds})
    if len(selecting) == len(seeds):
        return [note]
    numbers = enumeration([str(seed) for seed in selecting])
    which = f"seed {numbers}" if len(selecting) == 1 else f"seeds {numbers}"
    return [
        f"{note} Strengths were selected on {which} alone, by validation; results are those of the "
        f"{split} split over all seeds, including {which}."
    ]


def _on_data(trials: Sequence[ArmTrial]) -> list[str]:
    results = [result for trial in trials for result in trial.results.values()]
    known = [result.fingerprints for result in results if result.fingerprints]
    notes = [
        f"Not matched: the runs had different {split} data."
        for split in sorted({name for each in known for name in each})
        if len({each.get(split) for each in known}) > 1
    ]
    if len(steps := sorted({result.total_steps for result in results})) > 1:
        notes.append(f"Not matched: the runs took between {steps[0]} and {steps[-1]} steps.")
    known = [result.origin for result in results if result.origin]
    origins = Counter(", ".join(f"{name} {each[name]}" for name in each) for each in known)
    if len(origins) > 1:
        counts = [f"{text} ({count} runs)" for text, count in origins.items()]
        notes.append(f"Not matched: versions or devices of the runs differ: {'; '.join(counts)}.")
    return notes


def _on_idle(trials: Sequence[ArmTrial]) -> list[str]:
    idle = {
        trial.arm
        for trial in trials
        if any(result.values.get("drop_rate") == 0 for result in trial.results.values())
    }
    if not idle:
        return []
    return [
        f"{', '.join(sorted(idle))} dropped no token and trained as if without it: with "
        "`entropy_source: last_epoch`, entropies are known from the second epoch on."
    ]
