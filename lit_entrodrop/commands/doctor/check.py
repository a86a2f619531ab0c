"""Results of checks, and a runner that turns an error within a check into a failed result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from lit_entrodrop.runtime.shown_text import one_line

Status = Literal["pass", "warn", "fail", "skip"]  # a skipped check did not run
Checked = TypeVar("Checked")


@dataclass(frozen=True)
class CheckResult:
    """Result of a check: what it found, with numbers, and what to do about it, if anything."""

    status: Status
    found: str
    remedy: str = ""
    name: str = ""  # set by `run_check`


@dataclass(frozen=True)
class Theme(Generic[Checked]):
    """Group of checks of one object; each check is named after its function."""

    name: str
    checks: tuple[Callable[[Checked], CheckResult], ...]


def passed(found: str) -> CheckResult:
    """Return the result of a check that found no problem."""
    return CheckResult("pass", found)


def warned(found: str, remedy: str) -> CheckResult:
    """Return the result of a check that found a possible problem."""
    return CheckResult("warn", found, remedy)


def failed(found: str, remedy: str) -> CheckResult:
    """Return the result of a check that found a problem to fix before training."""
    return CheckResult("fail", found, remedy)


def run_check(check: Callable[[Checked], CheckResult], checked: Checked) -> CheckResult:
    """Run a check; an error within it becomes a failed result with the error's message.

    >>> run_check(lambda number: passed(f"{1 / number}"), 0).found
    'ZeroDivisionError: division by zero'
    """
    try:
        result = check(checked)
    except Exception as error:  # a model, a plug-in or a file may raise anything
        message = one_line(error)
        # This package raises ValueError with a remedy; of other errors, the type helps more.
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        result = CheckResult("fail", f"{kind}{message}" if message else type(error).__name__)
    return replace(result, name=name_of(check))


def name_of(check: Callable[..., CheckResult]) -> str:
    """Return the displayed name of a check."""
    return check.__name__.replace("_", " ").strip()
