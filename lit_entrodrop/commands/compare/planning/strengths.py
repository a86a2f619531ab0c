"""Strengths of an arm: their names, and a config at one of them."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

# Names that begin otherwise are relative to the arm's last regularizer.
SECTIONS = ("model.", "trainer.", "data.")


def trial_name(strength: Mapping[str, Any]) -> str:
    """Name a trial by its settings, without their parents unless that is ambiguous.

    >>> trial_name({"curriculum.init_args.max": 0.3}), trial_name({})
    ('max=0.3', '')
    """
    short = [name.rpartition(".")[2] for name in strength]
    names = short if len(set(short)) == len(short) else list(strength)
    return ",".join(f"{name}={value}" for name, value in zip(names, strength.values(), strict=True))


def with_strength(
    config: Mapping[str, Any], strength: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Return a copy of a config at a strength; errors name it by ``place``.

    Raises:
        ValueError: If a setting does not exist.
    """
    changed = deepcopy(dict(config))
    for name, value in strength.items():
        if name.startswith(SECTIONS):
            settings: Any = changed
        else:
            regularizers = changed["model"]["regularizers"]
            if not regularizers:
                raise ValueError(
                    f"{place}.{name}: expected a setting of the arm's last regularizer, but it has "
                    "none: add one, or name a setting of the model, such as "
                    "model.optimizer.init_args.weight_decay"
                )
            settings = regularizers[-1].setdefault("init_args", {})
        _set(settings, name, value, f"{place}.{name}")
    return changed


def _set(settings: Any, name: str, value: Any, place: str) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        settings = settings.get(parent) if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or last not in settings:
        known = ", ".join(settings) if isinstance(settings, dict) else "there are none"
        raise ValueError(
            f"{place}: expected an existing setting ({known}), got {name}: correct the name"
        )
    settings[last] = value
