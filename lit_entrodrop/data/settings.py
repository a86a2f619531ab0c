"""Checks of the data settings, all of which come before anything is read."""

from collections.abc import Mapping
from numbers import Integral


def check_at_least(least: int, **settings: int | None) -> None:
    """Refuse settings that are no whole number or too small.

    Args:
        least: The smallest value allowed.
        settings: Settings by name; None is allowed.

    Raises:
        ValueError: If one is not an int of at least `least`.
    """
    for name, value in settings.items():
        if value is None or (isinstance(value, Integral) and value >= least):
            continue
        raise ValueError(
            f"{name}: expected a whole number of at least {least}, got {value!r}. "
            f"Set it to {least} or more."
        )


def shares_of(held_out: Mapping[str, float | str]) -> dict[str, float]:
    """Return the shares of documents that the splits beside training take of the corpus.

    Args:
        held_out: By split, a share or the path of a corpus of its own.

    Returns:
        The shares by split; 0 for a corpus of its own.

    Raises:
        ValueError: If a share is negative, or they leave nothing for training.

    >>> shares_of({"validation": 0.1, "test": "exam.jsonl"})
    {'validation': 0.1, 'test': 0.0}
    """
    shares = {name: 0.0 if isinstance(of, str) else of for name, of in held_out.items()}
    if min(shares.values()) < 0 or not sum(shares.values()) < 1:
        given = ", ".join(f"{name} {of!r}" for name, of in held_out.items())
        raise ValueError(
            "validation, test and holdout: expected shares of at least 0 that add to less than 1, "
            f"got {given}. Use for example 0.1 and 0.1, or paths."
        )
    return shares
