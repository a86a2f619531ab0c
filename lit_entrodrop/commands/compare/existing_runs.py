"""Runs that were made before, sorted into arms."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_entrodrop.commands.compare.analysis import Trial
from lit_entrodrop.commands.compare.measures import are_tested, measure
from lit_entrodrop.commands.compare.planning import difference_beyond_arm, digest

SEED_FOLDER = re.compile(r"[-_. ]?seed[=_-]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class GivenRun:
    """The folder of a run, and the config that `fit` has left in it.

    Args:
        folder: of the run.
        name: of its arm, if the user has given one.
        config: whole config of `fit`.
    """

    folder: Path
    name: str | None
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The seed of data order and masks."""
        return int(self.config["seed_everything"])

    @property
    def recipe(self) -> str:
        """Hash of all settings but the seed."""
        return digest({**self.config, "seed_everything": None})

    @property
    def default_name(self) -> str:
        """The folder's name without the seed, or that of the folder around it."""
        own = SEED_FOLDER.sub("", self.folder.resolve().name)
        return own or self.folder.resolve().parent.name


def read_given(word: str) -> GivenRun:
    """Read a run that the command line names.

    Args:
        word: its folder, or ``NAME=FOLDER``.

    Raises:
        ValueError: if it is no folder of a run, or its config cannot be read.
    """
    name, equals, folder = word.partition("=")
    # Folders of runs may be called seed=0.
    if not equals or Path(word).is_dir():
        name, folder = "", word
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"runs: expected folders that `fit` wrote, found no config.yaml in {folder}: correct it"
        )
    return GivenRun(Path(folder), name or None, _config(path))


def sort_into_trials(runs: Sequence[GivenRun]) -> tuple[list[Trial], str, list[str]]:
    """Sort runs into arms: by the name that was given, or by what they share but for the seed.

    Args:
        runs: at least two.

    Returns:
        The arms, each with one trial; the split on which losses are told; and what should be known.

    Raises:
        ValueError: if there is one arm, or a seed comes twice.
    """
    arms: dict[str, dict[int, GivenRun]] = {}
    names: dict[str, str] = {}
    for run in runs:
        name = run.name or names.setdefault(run.recipe, _free(run.default_name, names.values()))
        of_arm = arms.setdefault(name, {})
        if run.seed in of_arm:
            raise ValueError(
                f"runs: expected one run of each arm and seed, got {of_arm[run.seed].folder} and "
                f"{run.folder}, both seed {run.seed} of {name}: leave one out, or name them "
                "NAME=FOLDER"
            )
        of_arm[run.seed] = run
    if len(arms) < 2:
        raise ValueError(
            f"runs: expected at least two arms, got {', '.join(arms)}: runs with equal settings "
            "but for the seed are one arm; name them NAME=FOLDER to tell them apart"
        )
    split = "test" if all(are_tested(run.folder) for run in runs) else "validation"
    trials = [
        Trial(name, {}, {seed: measure(of_arm[seed].folder, split) for seed in sorted(of_arm)})
        for name, of_arm in arms.items()
    ]
    return trials, split, [*_unmatched(arms), *_on_seeds(arms)]


def plain_or_first(trials: Sequence[Trial], runs: Sequence[GivenRun]) -> str:
    """Return the name of the arm without regularizers, or that of the first arm."""
    plain = {run.folder for run in runs if not run.config["model"].get("regularizers")}
    for trial in trials:
        if {result.folder for result in trial.results.values()} <= plain:
            return trial.arm
    return trials[0].arm


def _free(name: str, taken: Iterable[str]) -> str:
    known, number, candidate = set(taken), 2, name
    while candidate in known:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def _config(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
        if isinstance(found["model"], Mapping) and isinstance(found["data"], Mapping):
            int(found["seed_everything"])
            return dict(found)
        what = "others"
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        what = f"what cannot be read ({type(error).__name__})"
    raise ValueError(
        f"runs: expected the settings of `fit` (model, data, seed_everything) in {path}, got "
        f"{what}: copy the file of the run again, or leave the run out"
    )


def _unmatched(arms: Mapping[str, Mapping[int, GivenRun]]) -> list[str]:
    runs = {name: next(iter(of_arm.values())) for name, of_arm in arms.items()}
    (first, reference), *others = runs.items()
    found = {name: _difference(run, reference) for name, run in others}
    return [
        f"Not matched: {name} differs from {first} beyond what makes an arm: {difference}."
        for name, difference in found.items()
        if difference
    ]


def _on_seeds(arms: Mapping[str, Mapping[int, GivenRun]]) -> list[str]:
    if len({frozenset(of_arm) for of_arm in arms.values()}) == 1:
        return []
    told = "; ".join(f"{name} {', '.join(map(str, sorted(seeds)))}" for name, seeds in arms.items())
    return [
        f"Seeds differ ({told}): a mean is over all seeds of its arm, a difference over those that "
        "both arms share, so the means need not differ by it."
    ]


def _difference(run: GivenRun, reference: GivenRun) -> str | None:
    ours, theirs = ({**each.config, "seed_everything": None} for each in (run, reference))
    return difference_beyond_arm(ours, theirs)
