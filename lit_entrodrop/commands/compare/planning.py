"""Runs of a comparison, each with the complete config for `fit`."""

import hashlib
import json
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.compare.settings import Arm, ComparisonSettings, Config, Strength

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


@dataclass(frozen=True)
class PlannedRun:
    """Training run of an arm at one strength and one seed, with the complete config for `fit`."""

    arm: str
    strength: Strength
    seed: int
    folder: Path
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """Arm, strength and seed, for display."""
        return " ".join([self.arm, *filter(None, [trial_name(self.strength)]), f"seed {self.seed}"])


def plan_runs(settings: ComparisonSettings, output: Path) -> list[PlannedRun]:
    """Return all runs of a comparison: those of the first seed, then those of the next.

    Raises:
        ValueError: If `fit` rejects a config, or an arm changes a setting that all must share.
    """
    configs = [
        (arm, strength, config)
        for arm in settings.arms
        for strength, config in _trials(settings.base, arm)
    ]
    reference, _, shared = configs[0]
    for arm, _, config in configs[1:]:
        if difference := difference_beyond_arm(config, shared):
            raise ValueError(
                f"arms.{arm.name}: expected all settings except {', '.join(OF_AN_ARM)} as in "
                f"{reference.name}, but {difference}: set it in `base`"
            )
    runs = []
    for seed, (arm, strength, config) in product(settings.seeds, configs):
        folder = output / arm.name / trial_name(strength) / f"seed={seed}"
        own = deepcopy(config) | {"seed_everything": seed}
        own["trainer"]["default_root_dir"] = str(folder)
        runs.append(PlannedRun(arm.name, strength, seed, folder, own))
    return runs


def trial_name(strength: Mapping[str, Any]) -> str:
    """Name a trial by its settings, without their parents unless that is ambiguous.

    >>> trial_name({"curriculum.init_args.max": 0.3}), trial_name({})
    ('max=0.3', '')
    """
    short = [name.rpartition(".")[2] for name in strength]
    names = short if len(set(short)) == len(short) else list(strength)
    return ",".join(f"{name}={value}" for name, value in zip(names, strength.values(), strict=True))


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


def with_strength(config: Mapping[str, Any], strength: Strength, place: str) -> dict[str, Any]:
    """Return a copy of a config at a strength; errors name it by ``place``.

    Raises:
        ValueError: If a setting does not exist.
    """
    changed = deepcopy(dict(config))
    for name, value in strength.items():
        if name.startswith("model."):
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


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    of_an_arm = tuple(f"{name}." for name in OF_AN_ARM)
    settings = flatten(config).items()
    return {name: value for name, value in settings if not f"{name}.".startswith(of_an_arm)}


def _trials(base: Sequence[Config], arm: Arm) -> Iterator[tuple[Strength, dict[str, Any]]]:
    config = _resolve([*base, *arm.configs], f"arms.{arm.name}")
    setting = f"arms.{arm.name}.strengths"
    for strength in arm.trials:
        tried = with_strength(config, strength, setting)
        yield strength, _resolve([tried], setting) if strength else config


def _resolve(configs: Sequence[Config], setting: str) -> dict[str, Any]:
    """Compose configs as `fit` does."""
    try:
        return resolved_config(
            [f"--config={each}" if isinstance(each, str) else each for each in configs]
        )
    except ArgumentError as error:
        raise ValueError(f"{setting}: {error} (see lit-entrodrop fit --help)") from None
