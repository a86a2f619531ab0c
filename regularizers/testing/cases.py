"""What the contract is checked for: a class of regularizers with each value of its choices."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from regularizers.base import Regularizer
from regularizers.testing.steps import report_evaluations


@dataclass(frozen=True)
class Case:
    """A class of regularizers with settings other than its strength."""

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
        kind: its ``curriculum`` is the strength; every ``Literal`` or ``bool`` is a choice.
        settings: what has no default.

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
    """Tell whether the strength is something else than a probability."""
    try:
        case.build(1.5)
    except ValueError:
        return False
    return True


def assert_refused(case: Case, name: str, value: Any) -> None:
    """Require that a setting is refused by a ValueError that names it."""
    # A bare number is refused as a strength, by the curriculum that it is to become.
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
