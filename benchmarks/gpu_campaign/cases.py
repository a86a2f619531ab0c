"""What a campaign runs: steps, and the cases of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


class Skipped(Exception):
    """Raised by a case that needs something that is not there; the message names it."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        name: Name of the case within its step.
        measure: Function of a module, which yields each row as soon as it is measured.
        settings: Keyword arguments of the function.
        expected: Expected duration on an H200, in seconds. The case does not start if less is left.
    """

    name: str
    measure: Callable[..., Iterator[Row]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    expected: float = 0.0


@dataclass(frozen=True)
class Step:
    """Cases that follow each other.

    Args:
        name: Name of the step.
        cases: Cases, the most important first.
        share: Share of the campaign's time. Cases that do not fit into it run at the end, in what
            the other steps have left.
        parallel: Number of cases that run at the same time, each in its own process.
        is_needed: Whether the next step needs it, so that it runs even when its share is used up.
    """

    name: str
    cases: list[Case]
    share: float
    parallel: int = 1
    is_needed: bool = False
