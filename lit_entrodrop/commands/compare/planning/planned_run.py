"""Runs of a comparison, each with the complete config for `fit`."""

from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.compare.planning.config_differences import (
    OF_AN_ARM,
    difference_beyond_arm,
)
from lit_entrodrop.commands.compare.planning.parsing import Config
from lit_entrodrop.commands.compare.planning.settings import Arm, ComparisonSettings, Strength
from lit_entrodrop.commands.compare.planning.strengths import trial_name, with_strength


@dataclass(frozen=True)
class PlannedRun:
    """Training run of an arm at one strength and one seed, with the complete config for `fit`."""

    arm: str
    strength: Strength
    seed: int
    folder: Path
    config: dict[str, Any]
    share: float = 1.0  # of the training text

    @property
    def title(self) -> str:
        """Arm, strength, share of the text if it is not all, and seed, for display."""
        text = "" if self.share == 1 else f"on {self.share:.0%} of the text,"
        strength = trial_name(self.strength)
        return " ".join(filter(None, [self.arm, strength, text, f"seed {self.seed}"]))


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


def _trials(base: Sequence[Config], arm: Arm) -> Iterator[tuple[Strength, dict[str, Any]]]:
    config = resolve([*base, *arm.configs], f"arms.{arm.name}")
    setting = f"arms.{arm.name}.strengths"
    for strength in arm.trials:
        tried = with_strength(config, strength, setting)
        yield strength, resolve([tried], setting) if strength else config


def resolve(configs: Sequence[Config], setting: str) -> dict[str, Any]:
    """Compose configs as `fit` does."""
    try:
        return resolved_config(
            [f"--config={each}" if isinstance(each, str) else each for each in configs]
        )
    except ArgumentError as error:
        raise ValueError(f"{setting}: {error} (see lit-entrodrop fit --help)") from None
