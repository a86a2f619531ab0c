"""Nested settings, as in config files."""

from typing import Any


def merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings, in which given ones override defaults.

    >>> merged({"lm": {"dtype": "float32", "head": "auto"}}, {"lm": {"dtype": "bfloat16"}})
    {'lm': {'dtype': 'bfloat16', 'head': 'auto'}}
    """
    result = {**defaults, **given}
    for name in defaults.keys() & given.keys():
        if isinstance(defaults[name], dict) and isinstance(given[name], dict):
            result[name] = merged(defaults[name], given[name])
    return result


def flattened(nested: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested settings by their names with dots, as flags have them.

    >>> flattened({"lm": {"head": "auto"}, "seed": 0})
    {'lm.head': 'auto', 'seed': 0}
    """
    result: dict[str, Any] = {}
    for name, value in nested.items():
        inner = flattened(value) if isinstance(value, dict) else {}
        result |= {f"{name}.{rest}": each for rest, each in inner.items()} or {name: value}
    return result
