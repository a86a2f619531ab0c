"""Checks of settings that many classes share."""

from numbers import Integral


def check_at_least(least: int, **settings: int | None) -> None:
    """Refuse settings, by name, that are not whole numbers of at least `least`, nor None."""
    for name, value in settings.items():
        if value is None or (isinstance(value, Integral) and value >= least):
            continue
        raise ValueError(
            f"{name}: expected a whole number of at least {least}, got {value!r}. "
            f"Set it to {least} or more."
        )
