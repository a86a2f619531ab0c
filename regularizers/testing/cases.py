"""Cases of the contract: a regularizer class with each value of its choices."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from regularizers.base import Regularizer
from regularizers.testing.steps import report_evaluations


@dataclass(frozen=True)
class Case:
    """A regularizer class with settings other than its strength."""

    kind: type[Regularizer]
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, curriculum: float, **more: Any) -> Regularizer:
        """Build the regularizer with a constant strength, after some evaluations."""
        make: Callable[..., Regularizer] = self.kind
        regularizer = make(curriculum=curriculum, **{**self.settings, **more})
        report_evaluations(regularizer)
        return regularizer

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.kind.__name__}({settings})"


def cases_of(kind: type[Regularizer], settings: dict[str, Any] | None = None) -> list[Case]:
    """Return a case for the defaults and one for each other value of each choice.

    Args:
        kind: Regularizer class. Its ``curriculum`` is the strength; every ``Literal`` or ``bool``
            argument is a choice.
        settings: Arguments without a default.

    >>> from regularizers import EmbeddingDropout
    >>> [str(case) for case in cases_of(EmbeddingDropout)][:2]
    ['EmbeddingDropout()', 'EmbeddingDropout(granularity=position)']
    """
    given = settings or {}
    signature = inspect.signature(kind)
    unset = [name for name, each in signature.parameters.items() if each.default is each.empty]
    assert "curriculum" in signature.parameters, f"{kind.__name__} takes no curriculum"
    assert set(unset) <= {*given, "curriculum"}, f"{kind.__name__}: put {unset} into settings"
    cases = [Case(kind, given)]
    for name, hint in get_type_hints(kind.__init__).items():
        choices = (False, True) if hint is bool else get_args(hint)
        if hint is bool or get_origin(hint) is Literal:
            default = given.get(name, signature.parameters[name].default)
            cases += [Case(kind, {**given, name: each}) for each in choices if each != default]
    return cases


def takes_strength_above_one(case: Case) -> bool:
    """Return whether the strength may exceed 1, unlike a probability."""
    try:
        case.build(1.5)
    except ValueError:
        return False
    return True


def assert_refused(case: Case, name: str, value: Any) -> None:
    """Assert that a setting raises a ValueError that names it."""
    # The Constant curriculum refuses a bare number, as a strength.
    named = "[Cc]urriculum|strength" if name == "curriculum" else name
    message = ""
    try:
        case.build(**{"curriculum": 0.5, name: value})
    except ValueError as error:
        message = str(error)
    assert re.search(named, message), (
        f"expected a ValueError that names {name} for {name}={value!r}, "
        f"got {message or 'no error'!r}: check the setting in __init__"
    )
