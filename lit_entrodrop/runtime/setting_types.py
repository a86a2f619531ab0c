"""Checks of the types of settings, for callers from Python; the command line checks them itself."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "None",
    list: "a list",
    dict: "a mapping",
}
NUMBERS = {int: Integral, float: Real}


def check_types(prefix: str, annotated: Callable[..., object], settings: Mapping[str, Any]) -> None:
    """Check settings against type hints.

    Args:
        prefix: Prefix of the names of settings in messages, such as "data".
        annotated: Function or class with hints.
        settings: Values by name; those without a hint are ignored.

    Raises:
        ValueError: If a value is of another type.

    >>> def repeat(text: str, times: int | None = None) -> str: ...
    >>> check_types("my", repeat, {"text": "a", "times": "2"})
    Traceback (most recent call last):
    ValueError: my.times: expected a whole number or None, got '2': correct it
    """
    for name, hint in get_type_hints(annotated).items():
        if name in settings and not is_of(settings[name], hint):
            raise ValueError(
                f"{prefix}.{name}: expected {' or '.join(_words(hint))}, got {settings[name]!r}: "
                "correct it"
            )


def is_of(value: Any, hint: Any) -> bool:
    """Return whether a value has a type, with the types of its items.

    A number is no truth value; a tuple is a list.

    >>> is_of([{"a": 1}], list[str | dict[str, float]]), is_of(True, int), is_of("x", list[str])
    (True, False, False)
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(is_of(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        of_type = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return of_type and all(is_of(each, inner[0]) for each in value)
    if origin is dict:
        key, entry = inner
        return isinstance(value, Mapping) and all(
            is_of(each, key) and is_of(of, entry) for each, of in value.items()
        )
    if origin in NUMBERS:
        return isinstance(value, NUMBERS[origin]) and not isinstance(value, bool)
    return isinstance(value, origin)


def _words(hint: Any) -> list[str]:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return [word for each in inner for word in _words(each)]
    if origin is Literal:
        return [" or ".join(map(str, inner))]
    within = f" of {' or '.join(_words(inner[-1]))}" if inner else ""
    return [WORDS.get(origin, f"a {origin.__name__}") + within]
