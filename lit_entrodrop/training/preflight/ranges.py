"""Ranges of settings, checked on the config alone, before anything is built.

Lightning accepts values outside them, or fails later without naming the setting.
"""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_SEED = 2**32 - 1  # of NumPy
MAX_BLOCK = 2**24  # tokens, beyond the context of any model
MAX_PROCESSES = 1024  # on one machine
MAX_NODES = 2**16
MAX_RANK = 2**16  # of an adapter, beyond the width of any model


class Range(NamedTuple):
    """Values that a setting accepts, in words and as a function."""

    words: str
    accepts: Callable[[Any], bool]


def whole(low: int, high: float = math.inf) -> Range:
    """Return the range of whole numbers between two bounds, both included.

    >>> whole(1).words, whole(1).accepts(0), whole(0, 5).words
    ('a whole number of at least 1', False, 'a whole number from 0 to 5')
    """
    bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return Range(
        f"a whole number {bounds}", lambda value: _is_whole(value) and low <= value <= high
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_part(value: Any) -> bool:
    return value >= 1 if _is_whole(value) else isinstance(value, float) and 0 < value <= 1


def _is_bound(value: Any) -> bool:
    return _is_whole(value) and (value == -1 or value >= 1)


def _is_interval(value: Any) -> bool:
    # Lightning also accepts durations, and checks them.
    return not isinstance(value, int | float) or _is_part(value)


def _is_not_negative(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _is_positive(value: Any) -> bool:
    return _is_not_negative(value) and value > 0


def _are_devices(value: Any) -> bool:
    if isinstance(value, str):
        if value == "auto":
            return True
        try:
            numbers = [int(each) for each in value.split(",") if each.strip()]
        except ValueError:
            return False
        value = numbers if "," in value else numbers[0] if numbers else 0
    if isinstance(value, list):
        distinct = 0 < len(value) == len(set(map(str, value)))
        return distinct and all(_is_whole(each) and each >= 0 for each in value)
    return value == -1 or whole(1, MAX_PROCESSES).accepts(value)


def _is_folder(value: Any) -> bool:
    # Of a link that leads nowhere or to itself, only the link exists. Another rank may create the
    # folder between both calls, so that only in this order are they right.
    path = os.path.expanduser(value) if isinstance(value, str) else ""
    return bool(path.strip()) and (not os.path.lexists(path) or os.path.isdir(path))


PART = Range("a whole number of at least 1 or a share above 0.0 and up to 1.0", _is_part)
FOLDER = Range("the path of a folder, existing or new", _is_folder)
RANGES = {
    "seed_everything": whole(0, MAX_SEED),
    "trainer.default_root_dir": FOLDER,
    "trainer.devices": Range(
        "auto, the number of devices or a list of their indices", _are_devices
    ),
    "trainer.num_nodes": whole(1, MAX_NODES),
    "trainer.max_epochs": whole(-1),
    "trainer.max_steps": Range("-1 or a whole number of at least 1", _is_bound),
    "trainer.min_epochs": whole(0),
    "trainer.min_steps": whole(0),
    "trainer.limit_train_batches": PART,
    "trainer.val_check_interval": Range(PART.words, _is_interval),
    "trainer.check_val_every_n_epoch": whole(1),
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.log_every_n_steps": whole(0),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": Range("a finite number of at least 0", _is_not_negative),
    "trainer.reload_dataloaders_every_n_epochs": whole(0),
    "data.block_size": whole(2, MAX_BLOCK),
    "data.split_seed": whole(0, MAX_SEED),
    "data.num_proc": whole(1, MAX_PROCESSES),
    "data.num_workers": whole(0, MAX_PROCESSES),
    "data.cache_dir": FOLDER,
    "model.cache_dir": FOLDER,
    "model.lm.lora.rank": whole(1, MAX_RANK),
    "model.lm.lora.alpha": whole(1),
    "model.lm.lora.loraplus_lr_ratio": Range("a finite number above 0", _is_positive),
    "model.lm.lora.dropout": Range("a probability below 1", lambda value: 0 <= value < 1),
}
# Of the others, null leaves the choice to Lightning or to this package.
REQUIRED = {"seed_everything", "trainer.default_root_dir"}


def check_ranges(value_of: Callable[[str], Any]) -> None:
    """Check all settings that have a range.

    Args:
        value_of: Function that returns the value of a setting; None for null.

    Raises:
        ValueError: If one is out of its range.

    >>> given = {"seed_everything": 0, "trainer.default_root_dir": "run", "trainer.max_epochs": -2}
    >>> check_ranges(given.get)
    Traceback (most recent call last):
    ...
    ValueError: trainer.max_epochs: expected a whole number of at least -1, got -2: correct it
    """
    for name, expected in RANGES.items():
        value = value_of(name)
        if value is None and name not in REQUIRED:
            continue
        if not expected.accepts(value):
            raise ValueError(f"{name}: expected {expected.words}, got {value!r}: correct it")
    for unit in ("epochs", "steps"):
        least, most = value_of(f"trainer.min_{unit}"), value_of(f"trainer.max_{unit}")
        if least is not None and most is not None and -1 < most < least:
            raise ValueError(
                f"trainer.min_{unit}: expected at most trainer.max_{unit}, which is {most}, got "
                f"{least}: correct one of them"
            )
