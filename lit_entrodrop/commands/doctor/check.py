"""What a check says, and how checks are run so that one that breaks does not end the others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from lit_entrodrop.cli.parsing import one_line

Status = Literal["pass", "warn", "fail", "skip"]
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Check:
    """What one check found.

    Args:
        status: ``skip`` means that it was not looked at.
        found: in words, with numbers.
        remedy: what to do about it, if anything.
        name: of the check; its function's, once it has been run.
    """

    status: Status
    found: str
    remedy: str = ""
    name: str = ""


@dataclass(frozen=True)
class Theme(Generic[Subject]):
    """Checks of one kind.

    Args:
        name: of the kind.
        checks: functions that look at a subject; their names are those of the checks.
    """

    name: str
    checks: tuple[Callable[[Subject], Check], ...]


def passed(found: str) -> Check:
    """Return a check without complaint."""
    return Check("pass", found)


def warned(found: str, remedy: str) -> Check:
    """Return a check that a user should read before a run."""
    return Check("warn", found, remedy)


def failed(found: str, remedy: str) -> Check:
    """Return a check that must not stay as it is."""
    return Check("fail", found, remedy)


def run_check(check: Callable[[Subject], Check], subject: Subject) -> Check:
    """Run a check; an error within it is a failure, in the error's own words.

    >>> run_check(lambda number: passed(f"{1 / number}"), 0).found
    'ZeroDivisionError: division by zero'
    """
    try:
        found = check(subject)
    except Exception as error:  # whatever a model, a plug-in or a file may raise
        found = failure_of(error)
    return replace(found, name=name_of(check))


def failure_of(error: Exception) -> Check:
    """Return the check that an error ended."""
    said = one_line(error)
    # A ValueError of ours says what to do; of others the kind tells more than the words.
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return Check("fail", f"{kind}{said}" if said else type(error).__name__)


def name_of(check: Callable[..., Check]) -> str:
    """Return the name of a check for readers.

    >>> name_of(run_check)
    'run check'
    """
    return check.__name__.replace("_", " ").strip()


def any_fails(checks: Iterable[Check]) -> bool:
    """Tell whether something must not stay as it is."""
    return any(check.status == "fail" for check in checks)
