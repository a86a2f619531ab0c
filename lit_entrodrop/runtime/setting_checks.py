"""Checks of settings that many classes share."""

from numbers import Integral


def check_at_least(minimum: int, **settings: int | None) -> None:
    """Raise a ValueError for a setting that is neither None nor an integer >= `minimum`."""
    for name, value in settings.items():
        if value is None or (isinstance(value, Integral) and value >= minimum):
            continue
        raise ValueError(
            f"{name}: expected a whole number of at least {minimum}, got {value!r}. "
            f"Set it to {minimum} or more."
        )
