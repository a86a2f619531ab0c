"""Parts of configs that describe arms: names, mappings, config files, strengths and seeds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.config_files import find_config

Config = str | Mapping[str, Any]
NAME = re.compile(r"\w[\w .+-]*")
ARM_KEYS = {"configs", "strengths"}


def parse_arm(value: Any, place: str, folder: Path) -> tuple[tuple[Config, ...], Mapping[str, Any]]:
    """Return the configs and the strengths of an arm, from a list or a mapping with both.

    Args:
        value: Content of the config.
        place: Name of the arm, for error messages.
        folder: Folder in which config files are also searched.

    Raises:
        ValueError: If the value has another form, or a file does not exist.

    >>> parse_arm({"strengths": {"curriculum": [0.1, 0.2]}}, "arms.mine", Path())
    ((), {'curriculum': [0.1, 0.2]})
    """
    if not isinstance(value, Mapping):
        return parse_configs(value, place, folder), {}
    if not value.keys() <= ARM_KEYS:
        raise ValueError(
            f"{place}: expected a list of config files and mappings, or a mapping with `configs` "
            f"and `strengths`, got the keys {sorted(map(str, value))}: put a mapping for `fit` "
            "into a list"
        )
    strengths = parse_mapping(value.get("strengths") or {}, f"{place}.strengths")
    return parse_configs(value.get("configs"), place, folder), strengths


def parse_configs(value: Any, place: str, folder: Path) -> tuple[Config, ...]:
    """Return config files, also searched in ``folder``, and mappings as a tuple.

    Raises:
        ValueError: If a file does not exist, or an entry is neither.

    >>> parse_configs({"model": {}}, "base", Path())
    ({'model': {}},)
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    for each in given:
        if not isinstance(each, str | Mapping):
            raise ValueError(
                f"{place}: expected config files or mappings, got {each!r}: quote file names"
            )
    return tuple(
        str(find_config(each, folder)) if isinstance(each, str) else each for each in given
    )


def parse_mapping(value: Any, place: str, keys: set[str] | None = None) -> Mapping[str, Any]:
    """Return a mapping after a check of its keys.

    Raises:
        ValueError: If it is none, or a key is unknown.

    >>> parse_mapping({"plain": []}, "arms")
    {'plain': []}
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{place}: expected a mapping, got {value!r}: see configs/ for examples")
    if keys is not None and (unknown := sorted(map(str, value.keys() - keys))):
        raise ValueError(
            f"{place}: expected {', '.join(sorted(keys))}, got {unknown[0]}: correct its name"
        )
    return value


def parse_seeds(value: Any, place: str = "seeds") -> tuple[int, ...]:
    """Return one seed or a list of them as a tuple; errors name it by ``place``.

    Raises:
        ValueError: If one is no seed, or they are not different.

    >>> parse_seeds(3)
    (3,)
    """
    seeds = value if isinstance(value, list) else [value]
    whole = [type(seed) is int and 0 <= seed < 2**32 for seed in seeds]
    if not seeds or not all(whole) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{place}: expected different integers from 0 to 2**32 - 1, got {value}: write for "
            "example [0, 1, 2]"
        )
    return tuple(seeds)
