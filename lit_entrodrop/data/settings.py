"""Checks of the data settings, all of which come before anything is read."""

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


def check_shares(validation: float | str, test: float | str) -> tuple[float, float]:
    """Return the shares of documents that validation and test take of the corpus.

    Args:
        validation: A share, or the path of a corpus of its own.
        test: A share, or the path of a corpus of its own.

    Returns:
        Both shares; 0 for a corpus of its own.

    Raises:
        ValueError: If a share is negative, or they leave nothing for training.

    >>> check_shares(0.1, "exam.jsonl")
    (0.1, 0.0)
    """
    shares = tuple(0.0 if isinstance(share, str) else share for share in (validation, test))
    if min(shares) < 0 or not sum(shares) < 1:
        raise ValueError(
            "validation and test: expected shares of at least 0 that add to less than 1, got "
            f"{validation!r} and {test!r}. Use for example 0.1 and 0.1, or paths."
        )
    return shares[0], shares[1]
