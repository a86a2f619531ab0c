"""The runs of a comparison, each with the whole config that `fit` would use."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lit_entrodrop.cli.lit_cli import resolved_config
from lit_entrodrop.cli.messages import one_line
from lit_entrodrop.commands.compare.settings import Arm, Config, Settings, Strength

# What decides neither what is learned nor what is measured.
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
# What makes an arm. All else is shared, also how a run is measured: else a difference would not be
# due to the arm.
OF_AN_ARM = (
    "model.regularizers",
    "model.optimizer",
    "model.lr_schedule",
    "model.reference",
    "model.lm.lora",
    "model.lm.dropout",
    "model.lm.config_overrides.attention_dropout",
    "data.order",
)


@dataclass(frozen=True)
class PlannedRun:
    """One fit: an arm with a strength and a seed.

    Args:
        arm: its name.
        strength: the settings that are tried.
        seed: of data order, masks and random weights.
        folder: of the run.
        config: whole config of `fit`.
    """

    arm: str
    strength: Strength
    seed: int
    folder: Path
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """Arm, strength and seed in words."""
        return " ".join([self.arm, *filter(None, [trial_name(self.strength)]), f"seed {self.seed}"])

    @property
    def digest(self) -> str:
        """Hash of all settings that have an effect."""
        return digest(self.config)


def plan_runs(settings: Settings, output: Path) -> list[PlannedRun]:
    """Return all runs of a comparison, the first seed of each arm and strength first.

    Args:
        settings: the comparison.
        output: folder of all runs.

    Raises:
        ValueError: if `fit` would refuse a config, or an arm changes what all must share.
    """
    with TemporaryDirectory() as temporary:
        resolver = _Resolver(Path(temporary))
        configs = [
            (arm, strength, config)
            for arm in settings.arms
            for strength, config in resolver.trials(settings.base, arm)
        ]
    for arm, _, config in configs[1:]:
        _require_shared(arm.name, config, configs[0][0].name, configs[0][2])
    return [
        _run(arm, strength, seed, config, output)
        for seed in settings.seeds
        for arm, strength, config in configs
    ]


def trial_name(strength: Mapping[str, Any]) -> str:
    """Name a trial by its settings, short where that is unambiguous.

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
    """Name the first setting with an effect in which two configs differ, and both values.

    >>> first_difference({"data": {"seed": 1}}, {"data": {"seed": 2}})
    'data.seed is 1, not 2'
    """
    ours, theirs = flatten(config), flatten(other)
    for name in sorted(ours.keys() | theirs):
        if ours.get(name, "absent") != theirs.get(name, "absent"):
            return f"{name} is {ours.get(name, 'absent')}, not {theirs.get(name, 'absent')}"
    return None


def difference_beyond_arm(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Name the first setting in which two configs differ that all arms must share.

    >>> difference_beyond_arm({"model": {"optimizer": "A"}}, {"model": {"optimizer": "B"}})
    >>> difference_beyond_arm({"model": {"seed": 1}}, {"model": {"seed": 2}})
    'model.seed is 1, not 2'
    """
    return first_difference(_shared(config), _shared(other))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the settings that have an effect by their dotted names.

    >>> flatten({"model": {"regularizers": [{"class_path": "A"}]}, "ckpt_path": "last"})
    {'model.regularizers.0.class_path': 'A'}
    """
    if prefix in WITHOUT_EFFECT:
        return {}
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(config, Mapping):
        items = list(config.items())
    elif isinstance(config, list):
        items = list(enumerate(config))
    if not items:
        return {prefix: config} if prefix and config != {} else {}
    found: dict[str, Any] = {}
    for name, value in items:
        found |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def with_strength(config: Mapping[str, Any], strength: Strength, place: str) -> dict[str, Any]:
    """Return a config with other values of some settings.

    Args:
        config: whole config of `fit`.
        strength: values by names, from ``model.`` on or from the ``init_args`` of the last
            regularizer on.
        place: where the names stand, for errors.

    Raises:
        ValueError: if there is no such setting.
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
        known = ", ".join(settings) if isinstance(settings, dict) else "no settings"
        raise ValueError(f"{place}: expected a setting that there is, found {known}: correct it")
    settings[last] = value


def _run(
    arm: Arm, strength: Strength, seed: int, config: dict[str, Any], output: Path
) -> PlannedRun:
    folder = output / arm.name / trial_name(strength) / f"seed={seed}"
    own = deepcopy(config) | {"seed_everything": seed}
    own["trainer"]["default_root_dir"] = str(folder)
    return PlannedRun(arm.name, strength, seed, folder, own)


def _require_shared(
    arm: str, config: Mapping[str, Any], other: str, other_config: Mapping[str, Any]
) -> None:
    if difference := difference_beyond_arm(config, other_config):
        raise ValueError(
            f"arms.{arm}: expected everything but {', '.join(OF_AN_ARM)} as in {other}, but "
            f"{difference}: set it in `base`"
        )


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = flatten(config).items()
    return {
        name: value
        for name, value in settings
        if not any(name == each or name.startswith(f"{each}.") for each in OF_AN_ARM)
    }


class _Resolver:
    """Compose configs as `fit` does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def trials(self, base: Sequence[Config], arm: Arm) -> Iterator[tuple[Strength, dict[str, Any]]]:
        config = self._resolve([*base, *arm.configs], f"arms.{arm.name}")
        for strength in arm.trials:
            place = f"arms.{arm.name}.strengths"
            tried = with_strength(config, strength, place)
            yield strength, self._resolve([tried], place) if strength else config

    def _resolve(self, configs: Sequence[Config], place: str) -> dict[str, Any]:
        files = [self._file(number, config) for number, config in enumerate(configs)]
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                return resolved_config([word for file in files for word in ("--config", file)])
        except SystemExit:
            raise ValueError(f"{place}: {one_line(said.getvalue())}") from None

    def _file(self, number: int, config: Config) -> str:
        if isinstance(config, str):
            return config
        path = self._folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        return str(path)
