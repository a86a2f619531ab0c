"""Existing runs, grouped into arms."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from lit_entrodrop.cli.yaml_text import load_yaml
from lit_entrodrop.commands.compare.judging.analysis import ArmTrial
from lit_entrodrop.commands.compare.measuring.measures import are_tested, measure
from lit_entrodrop.commands.compare.planning.config_differences import difference_beyond_arm, digest
from lit_entrodrop.runs.layout import CONFIG

SEED_FOLDER = re.compile(r"[-_. ]?seed[=_-]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class ExistingRun:
    """Folder and config of a run that `fit` has written, and its arm if the user has named one."""

    folder: Path
    name: str | None
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Seed of data order and masks."""
        return int(self.config["seed_everything"])

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings except the seed."""
        return {**self.config, "seed_everything": None}

    @property
    def default_name(self) -> str:
        """Name of the folder without the seed, or of its parent if nothing else is left."""
        own = SEED_FOLDER.sub("", self.folder.resolve().name)
        return own or self.folder.resolve().parent.name


def read_existing_run(argument: str) -> ExistingRun:
    """Read a run that is named on the command line by its folder, or by ``NAME=FOLDER``.

    Raises:
        ValueError: If it is not the folder of a run, or its config cannot be read.
    """
    name, equals, folder = argument.partition("=")
    # A folder may have a name such as seed=0.
    if not equals or Path(argument).is_dir():
        name, folder = "", argument
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ValueError(
            f"runs: expected folders that `fit` wrote, found no config.yaml in {folder}: correct it"
        )
    return ExistingRun(Path(folder), name or None, _config(path))


def group_into_trials(runs: Sequence[ExistingRun]) -> tuple[list[ArmTrial], str, list[str]]:
    """Group runs into arms: by their given names, or by equal settings except the seed.

    Returns the trials, the split of the losses, and notes on what differs between the runs.

    Raises:
        ValueError: If there is only one arm, or an arm has two runs with one seed.
    """
    arms: dict[str, dict[int, ExistingRun]] = {}
    names: dict[str, str] = {}
    for run in runs:
        own = run.default_name
        numbered = (own if number == 1 else f"{own}-{number}" for number in count(1))
        free = next(name for name in numbered if name not in names.values())
        name = run.name or names.setdefault(digest(run.recipe), free)
        of_arm = arms.setdefault(name, {})
        if run.seed in of_arm:
            raise ValueError(
                f"runs: expected one run of each arm and seed, got {of_arm[run.seed].folder} and "
                f"{run.folder}, both seed {run.seed} of {name}: remove one, or name the arms "
                "by NAME=FOLDER"
            )
        of_arm[run.seed] = run
    if len(arms) < 2:
        raise ValueError(
            f"runs: expected at least two arms, got {', '.join(arms)}: runs that differ only in "
            "their seed are one arm; name them by NAME=FOLDER to compare them"
        )
    split = "test" if all(are_tested(run.folder) for run in runs) else "validation"
    trials = [
        ArmTrial(name, {}, {seed: measure(of_arm[seed].folder, split) for seed in sorted(of_arm)})
        for name, of_arm in arms.items()
    ]
    return trials, split, [*_unmatched(arms), *_on_seeds(arms)]


def plain_or_first(trials: Sequence[ArmTrial], runs: Sequence[ExistingRun]) -> str:
    """Return the name of the arm without regularizers, or else of the first arm."""
    plain = {run.folder for run in runs if not run.config["model"].get("regularizers")}
    for trial in trials:
        if {result.folder for result in trial.results.values()} <= plain:
            return trial.arm
    return trials[0].arm


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = load_yaml(path.read_text())
        if isinstance(config["model"], Mapping) and isinstance(config["data"], Mapping):
            int(config["seed_everything"])
            return dict(config)
        found = "other settings"
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        found = f"an unreadable file ({type(error).__name__})"
    raise ValueError(
        f"runs: expected the settings of `fit` (model, data, seed_everything) in {path}, got "
        f"{found}: copy the file of the run again, or leave the run out"
    )


def _unmatched(arms: Mapping[str, Mapping[int, ExistingRun]]) -> list[str]:
    runs = {name: next(iter(of_arm.values())) for name, of_arm in arms.items()}
    (first, reference), *others = runs.items()
    return [
        f"Not matched: {name} differs from {first} in a setting that arms must share: {difference}."
        for name, run in others
        if (difference := difference_beyond_arm(run.recipe, reference.recipe))
    ]


def _on_seeds(arms: Mapping[str, Mapping[int, ExistingRun]]) -> list[str]:
    if len({frozenset(of_arm) for of_arm in arms.values()}) == 1:
        return []
    seeds = "; ".join(f"{name} {', '.join(map(str, sorted(runs)))}" for name, runs in arms.items())
    return [
        f"Seeds differ ({seeds}): a mean is over all seeds of its arm, a difference over the "
        "common seeds of both arms, which may not be the difference of the means."
    ]
