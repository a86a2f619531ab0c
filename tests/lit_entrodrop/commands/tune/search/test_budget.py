"""Budget of a search: what fits into it, and when it is too small."""

from dataclasses import replace

import pytest

from lit_entrodrop.commands.tune.search.budget import Budget, Limits, parse_duration
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.space.sample import Sample

PLAIN = TrialOutcome("plain", 0, "finished", Sample({}), score=3.0, seconds=60.0)
METHOD = replace(PLAIN, study="methods", sample=Sample({}, {"method": ("mine", {})}))


def test_time_of_the_final_runs_is_reserved() -> None:
    budget = Budget(Limits(3600.0, None, seeds=3), workers=2)
    # Plain and three methods, three seeds, two at a time, and a quarter for the tests.
    final = 4 * 3 * 60.0 / 2 * 1.25
    assert budget.final_seconds([PLAIN, METHOD]) == final
    left = budget.search_left([PLAIN, METHOD])
    assert left == pytest.approx(3600.0 - final, abs=5)
    assert budget.fitting([PLAIN, METHOD]) == 2 + int(left * 2 / 60)
    assert budget.allows([PLAIN, METHOD])
    late = Budget(Limits(3600.0, None), workers=2, earlier=3600.0 - final - 50)
    assert not late.allows([PLAIN, METHOD] * 2)


def test_small_budget_is_refused_after_the_first_run() -> None:
    budget = Budget(Limits(600.0, None), workers=1)
    assert budget.allows([])
    with pytest.raises(ValueError, match=r"budget: expected at least 20 min .*, got 10 min 0 s, "):
        budget.allows([PLAIN])


def test_small_budget_is_refused_while_other_first_runs_train() -> None:
    running = replace(METHOD, state="running", score=None, seconds=0.0)
    budget = Budget(Limits(60.0, None), workers=4)
    with pytest.raises(ValueError, match="into which 1 trials fit"):
        budget.allows([PLAIN, *[running] * 3])
    assert budget.fitting([PLAIN, *[running] * 3]) == 4
    late = Budget(Limits(60.0, None), workers=4, earlier=61.0)
    with pytest.raises(ValueError, match="expected more than 1 min 1 s, as no run has ended"):
        late.check_first([running] * 4)
    # A search interrupted in its final runs resumes these, without further trials.
    assert not late.allows([PLAIN] * 4)


def test_reserve_is_no_part_of_a_run() -> None:
    assert Budget(Limits(60.0, None), workers=16).final_seconds([PLAIN, METHOD]) == 60.0 * 1.25


def test_number_of_trials_ends_a_search() -> None:
    budget = Budget(Limits(None, 4), workers=1)
    assert budget.allows([PLAIN] * 3)
    assert not budget.allows([PLAIN] * 4)
    assert budget.fitting([PLAIN]) == 4


@pytest.mark.parametrize(
    ("budget", "trials", "seeds", "message"),
    [
        ("2 hours", None, 3, "such as 40m, 2h or 1h30m, got '2 hours'"),
        (None, 3, 3, "trials: expected at least 4"),
        (None, 8, 1, "seeds: expected at least 3"),
    ],
)
def test_wrong_limits_are_refused(
    budget: str | None, trials: int | None, seeds: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Limits.parse(budget, trials, seeds)
    assert parse_duration("1.5h") == 5400.0
