"""Differences between the configs of runs, by the settings that have an effect."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Settings that change neither training nor measurements.
WITHOUT_EFFECT = (
    "ckpt_path",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "data.num_workers",
    "data.num_proc",
    "data.cache_dir",
    "model.cache_dir",
)
# Settings that an arm may change. All arms share the others, including those of the measurements:
# otherwise a difference would not be due to the arm.
OF_AN_ARM = (
    "model.regularizers",
    "model.optimizer",
    "model.lr_schedule",
    "model.weight_decay_schedule",
    "model.groups",
    "model.layer_lr_decay",
    "model.average",
    "model.reference",
    "model.lm.lora",
    "model.lm.quantize",
    "model.lm.dropout",
    "model.lm.config_overrides.attention_dropout",
    "data.order",
    "data.repack",
    "data.replay",
)


def digest(config: Mapping[str, Any]) -> str:
    """Return a hash of the settings that have an effect.

    >>> digest({"trainer": {"default_root_dir": "a"}}) == digest({"ckpt_path": "last"})
    True
    """
    effective = json.dumps(flatten(config), sort_keys=True, default=str)
    return hashlib.sha256(effective.encode()).hexdigest()


def first_difference(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Describe the first setting with an effect that differs between two configs.

    >>> first_difference({"data": {"seed": 1}}, {"data": {"seed": 2}})
    'data.seed is 1, not 2'
    """
    own, others = flatten(config), flatten(other)
    for name in sorted(own.keys() | others):
        if own.get(name, "absent") != others.get(name, "absent"):
            return f"{name} is {own.get(name, 'absent')}, not {others.get(name, 'absent')}"
    return None


def difference_beyond_arm(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Describe the first difference between two configs that an arm may not make.

    >>> difference_beyond_arm({"model": {"optimizer": "A"}}, {"model": {"optimizer": "B"}})
    >>> difference_beyond_arm({"model": {"seed": 1}}, {"model": {"seed": 2}})
    'model.seed is 1, not 2'
    """
    return first_difference(_shared(config), _shared(other))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the settings that have an effect, by dotted name.

    >>> flatten({"model": {"regularizers": [{"class_path": "A"}]}, "ckpt_path": "last"})
    {'model.regularizers.0.class_path': 'A'}
    """
    if prefix in WITHOUT_EFFECT:
        return {}
    if not config or not isinstance(config, Mapping | list):
        return {prefix: config} if prefix and config != {} else {}
    found: dict[str, Any] = {}
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        found |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    of_an_arm = tuple(f"{name}." for name in OF_AN_ARM)
    settings = flatten(config).items()
    return {name: value for name, value in settings if not f"{name}.".startswith(of_an_arm)}
