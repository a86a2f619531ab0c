"""The part of the contract about settings, copies and evaluations."""

import math
import pickle
from typing import Literal, get_origin, get_type_hints

from regularizers.testing.cases import Case, assert_refused, takes_strength_above_one
from regularizers.testing.observing import differences, observe
from regularizers.testing.steps import EVALUATION, make_step


class SettingsContract:
    """Checks of settings, copies and evaluations."""

    def test_copies_behave_equally(self, case: Case) -> None:
        """A regularizer can be sent to another process."""
        regularizer = case.build(0.5)
        copy = pickle.loads(pickle.dumps(regularizer))
        changed = differences(regularizer, copy)
        assert not changed, f"expected an unpickled copy to do the same, got different {changed}"

    def test_repeated_evaluations_lead_to_the_same_state(self, case: Case) -> None:
        """A resumed run repeats all evaluations and continues with the same state."""
        histories = [{**EVALUATION, "val/loss": loss} for loss in (28.0, 27.0, 29.0)]
        first, second = case.build(0.5), case.build(0.5)
        for number, metrics in enumerate(histories):
            first.on_evaluation(metrics)
            if number == 0:
                observe(first, make_step())
        for metrics in histories:
            second.on_evaluation(metrics)
        changed = differences(first, second)
        assert not changed, (
            f"expected a regularizer that only evaluations change, got different {changed} after "
            "a step between them"
        )

    def test_bad_strengths_are_refused(self, case: Case) -> None:
        """Negative, NaN and infinite strengths are refused, and probabilities above 1."""
        for strength in (-0.1, math.nan, math.inf):
            assert_refused(case, "curriculum", strength)
        if takes_strength_above_one(case):
            # Such a strength must have an effect, and not be clipped to 1.
            excessive, full = (observe(case.build(each), make_step())[0] for each in (1.5, 1.0))
            assert excessive != full, (
                "expected curriculum=1.5 to be refused or to differ from 1, got the same effect: "
                "call require_probability"
            )
        else:
            assert_refused(case, "curriculum", 1.5)

    def test_bad_settings_are_refused_by_name(self, case: Case) -> None:
        """An error names the wrong setting; NaN is wrong for every number."""
        for name, hint in get_type_hints(case.kind.__init__).items():
            if name in case.settings or name == "curriculum":
                continue
            if get_origin(hint) is Literal:
                assert_refused(case, name, "no such choice")
            elif hint in (float, float | None):
                assert_refused(case, name, math.nan)
