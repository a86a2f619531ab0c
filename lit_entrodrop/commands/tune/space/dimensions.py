"""Values that a search may give a setting: a range or a list of choices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import Trial

RANGE_KEYS = {"low", "high", "log", "relative", "if_set"}
DIGITS = 3  # significant, so that a recipe is readable


@dataclass(frozen=True)
class Range:
    """Range of numbers, both ends included; whole numbers if both ends are.

    Args:
        low: Lowest value.
        high: Highest value.
        log: Whether values are drawn on a logarithmic scale. Default: False.
        relative: Whether the ends are factors of the value in the config. Default: False.
        if_set: Setting that must not be null in the config, else the range is not searched.
            Default: None.
    """

    low: float
    high: float
    log: bool = False
    relative: bool = False
    if_set: str | None = None

    @property
    def ends(self) -> tuple[Any, Any]:
        """Lowest and highest value."""
        return self.low, self.high

    def suggest(self, trial: "Trial", name: str) -> float:
        """Draw a value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return float(f"{value:.{DIGITS}g}")

    def nearest(self, value: Any) -> float | None:
        """Return the value of the range that is nearest to a number, None for anything else.

        >>> Range(0.01, 1.0).nearest(0.0)
        0.01
        """
        return min(max(value, self.low), self.high) if _is_number(value) else None

    def around(self, value: Any, place: str) -> "Range":
        """Return the range with its ends multiplied by the value in the config, if it is relative.

        Raises:
            ValueError: If that is not a positive number.

        >>> Range(0.5, 2.0, relative=True).around(9, "trainer.max_epochs").ends
        (4, 18)
        """
        if not self.relative:
            return self
        if not _is_number(value) or value <= 0:
            raise ValueError(
                f"{place}: expected a positive number in the config, as its range is relative, got "
                f"{value}: set it, or give the range without `relative`"
            )
        low, high = self.low * value, self.high * value
        if isinstance(value, int):
            return replace(self, low=max(1, round(low)), high=max(1, round(high)), relative=False)
        return replace(self, low=low, high=high, relative=False)


@dataclass(frozen=True)
class Choices:
    """List of values."""

    values: tuple[bool | int | float | str | None, ...]

    @property
    def ends(self) -> tuple[Any, Any]:
        """First and last value."""
        return self.values[0], self.values[-1]

    def nearest(self, value: Any) -> Any:
        """Return a value that is one of the choices, None for any other."""
        return value if value in self.values else None

    def suggest(self, trial: "Trial", name: str) -> Any:
        """Draw a value."""
        return trial.suggest_categorical(name, self.values)


Dimension = Range | Choices


def parse_dimension(value: Any, place: str) -> Dimension:
    """Check the values that a space gives for a setting.

    Raises:
        ValueError: If they are neither a range nor a list of choices.

    >>> parse_dimension({"low": 0.1, "high": 1.0, "log": True}, "lr").ends
    (0.1, 1.0)
    >>> parse_dimension([0.9, 0.99], "decay").ends
    (0.9, 0.99)
    """
    if isinstance(value, list):
        simple = all(each is None or isinstance(each, bool | int | float | str) for each in value)
        if not simple or len(value) < 2 or len({repr(each) for each in value}) < len(value):
            raise ValueError(
                f"{place}: expected at least two different values, got {value}: write for example "
                "[0.9, 0.99]"
            )
        return Choices(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys() <= RANGE_KEYS:
        raise ValueError(
            f"{place}: expected a list of values, or a range with low, high and, optionally, log, "
            f"relative and if_set, got {value}: write for example {{low: 0.01, high: 1.0}}"
        )
    # YAML reads 1e-4 as text.
    found = Range(**{key: _number(each) for key, each in value.items()})
    if not (_is_number(found.low) and _is_number(found.high)) or not found.low < found.high:
        raise ValueError(
            f"{place}: expected numbers with low < high, got {found.low} and {found.high}: correct "
            "the range"
        )
    if (found.log or found.relative) and found.low <= 0:
        raise ValueError(
            f"{place}: expected low > 0 in a range with log or relative, got {found.low}: raise it"
        )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
