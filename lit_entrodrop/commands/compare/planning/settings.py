"""Settings of a comparison, from its config file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.config_files import find_config
from lit_entrodrop.cli.yaml_text import read_yaml
from lit_entrodrop.commands.compare.planning.ladder import Ladder, read_ladder
from lit_entrodrop.commands.compare.planning.parsing import (
    NAME,
    Config,
    parse_arm,
    parse_configs,
    parse_mapping,
    parse_seeds,
)

Strength = dict[str, Any]
# Names of files and folders that a comparison writes next to the folders of its arms.
RESERVED = {"lock", "figures", "report.html", "comparison.json"}
KEYS = {
    "title",
    "base",
    "arms",
    "seeds",
    "strength_seeds",
    "baseline",
    "contrasts",
    "ladder",
    "ladder_at",
    "output",
}


@dataclass(frozen=True)
class Arm:
    """One way of training: what it adds to the base, and values to try for each setting.

    The name of a setting starts with ``model.`` or ``data.``, or is relative to the ``init_args``
    of the arm's last regularizer.

    >>> Arm("a", strengths={"curriculum": [0.1, 0.2], "granularity": ["row"]}).trials[1]
    {'curriculum': 0.2, 'granularity': 'row'}
    """

    name: str
    configs: tuple[Config, ...] = ()
    strengths: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def trials(self) -> list[Strength]:
        """All combinations of strengths; a single, empty one if there are no strengths."""
        combinations = product(*self.strengths.values())
        return [dict(zip(self.strengths, values, strict=True)) for values in combinations]


@dataclass(frozen=True)
class ComparisonSettings:
    """Content of a comparison's config; configs/comparisons/entrodrop.yaml explains each key."""

    base: tuple[Config, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: str
    contrasts: tuple[tuple[str, str], ...] = ()
    title: str = "comparison"
    output: str | None = None
    strength_seeds: tuple[int, ...] | None = None
    ladder: Ladder | None = None

    @property
    def selection_seeds(self) -> tuple[int, ...]:
        """Seeds on which strengths are selected, by default all."""
        return self.strength_seeds or self.seeds

    @property
    def run_count(self) -> int:
        """Number of runs of the whole comparison.

        A contrast may add runs of its second arm at the selected strength of the first.
        """
        further = len(self.seeds) - len(self.selection_seeds)
        trials = sum(len(arm.trials) for arm in self.arms)
        count = len(self.selection_seeds) * trials + further * len(self.arms)
        if self.ladder is not None:
            count += self.ladder.run_count(len(self.arms), len(self.seeds))
        return count

    def with_base(self, base: Sequence[str]) -> "ComparisonSettings":
        """Replace what all arms share by config files, such as those of another model and corpus.

        >>> settings = parse_settings({"base": ["base.yaml"], "arms": {"plain": [], "mine": []}})
        >>> settings.with_base(["configs/base.yaml", "configs/model/tiny_base.yaml"]).title
        'comparison, on tiny_base'
        """
        if not base:
            return self
        title = f"{self.title}, on {Path(base[-1]).stem}"
        return replace(self, base=parse_configs(list(base), "base", Path()), title=title)

    def with_arms(self, names: Sequence[str]) -> "ComparisonSettings":
        """Leave out all arms but these and the baseline, and the contrasts of those left out.

        Raises:
            ValueError: If an arm is unknown, or only the baseline remains.

        >>> content = {"base": ["base.yaml"], "arms": {"plain": [], "one": [], "two": []}}
        >>> [arm.name for arm in parse_settings(content).with_arms(["two"]).arms]
        ['plain', 'two']
        """
        known = [arm.name for arm in self.arms]
        kept = {self.baseline, *(_known(name, known, "arms") for name in names)}
        if kept == {self.baseline}:
            raise ValueError(
                f"arms: expected arms besides the baseline, got {self.baseline}: name another"
            )
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arm.name in kept),
            contrasts=tuple(pair for pair in self.contrasts if kept.issuperset(pair)),
        )


def read_settings(path: Path, changes: Mapping[str, Any] | None = None) -> ComparisonSettings:
    """Read and check a comparison's config: a YAML file, or the name of a bundled config.

    ``changes`` take precedence over its keys.
    """
    file = find_config(str(path), Path())
    content = parse_mapping(read_yaml(file, "config"), "config")
    return parse_settings({**content, **(changes or {})}, file.parent)


def parse_settings(content: Any, folder: Path = Path()) -> ComparisonSettings:
    """Check the content of a comparison's config; files are also searched in ``folder``.

    Raises:
        ValueError: If the config is wrong.

    >>> content = {"base": ["base.yaml"], "arms": {"plain": [], "mine": [{"model": {}}]}}
    >>> settings = parse_settings(content)
    >>> settings.baseline, settings.seeds, [arm.name for arm in settings.arms]
    ('plain', (0,), ['plain', 'mine'])
    """
    given = parse_mapping(content, "config", KEYS)
    named = parse_mapping(given.get("arms"), "arms")
    arms = tuple(_arm(str(name), value, folder) for name, value in named.items())
    names = [arm.name for arm in arms]
    if len(arms) < 2:
        raise ValueError(f"arms: expected at least two, got {names}: add an arm to compare with")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(
            f"arms: expected names that differ by more than case, got {', '.join(names)}: each arm "
            "has a folder of its name, and some file systems ignore case"
        )
    _require_equal_grids(arms)
    base = parse_configs(given.get("base"), "base", folder)
    if not base:
        raise ValueError(
            "base: expected a list of config files or mappings that all arms share, got none: set "
            "model and data as for `fit`"
        )
    default = "plain" if "plain" in names else names[0]
    output = given.get("output")
    seeds = parse_seeds(given.get("seeds", [0]))
    return ComparisonSettings(
        base,
        arms,
        seeds,
        _known(given.get("baseline", default), names, "baseline"),
        _contrasts(given.get("contrasts") or [], names),
        str(given.get("title") or "comparison"),
        None if output is None else str(output),
        _strength_seeds(given.get("strength_seeds"), seeds),
        read_ladder(given.get("ladder"), given.get("ladder_at")),
    )


def _arm(name: str, value: Any, folder: Path) -> Arm:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"arms: expected a name that is valid for a folder, got {name!r}: use letters, digits "
            "and _"
        )
    if name.casefold() in RESERVED:
        raise ValueError(
            f"arms: expected names other than {', '.join(sorted(RESERVED))}, which are files of "
            f"the comparison, got {name}: rename the arm"
        )
    place = f"arms.{name}"
    configs, strengths = parse_arm(value, place, folder)
    for setting, values in strengths.items():
        if not isinstance(values, list) or not values or len(set(map(str, values))) < len(values):
            raise ValueError(
                f"{place}.strengths.{setting}: expected a list of different values, got {values}: "
                "write for example [0.3, 0.6]"
            )
    return Arm(name, configs, dict(strengths))


def _require_equal_grids(arms: Sequence[Arm]) -> None:
    counts = {arm.name: len(arm.trials) for arm in arms if arm.strengths}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            "strengths: expected the same number of trials for all arms with a grid, as the best "
            f"of more trials looks better by chance, got {found}: give each as many values"
        )


def _contrasts(value: Any, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(
                f"contrasts: expected pairs of different arms, got {pair}: write [[one, other]]"
            )
        first, second = (_known(name, names, "contrasts") for name in pair)
        pairs.append((first, second))
    return tuple(pairs)


def _strength_seeds(value: Any, seeds: Sequence[int]) -> tuple[int, ...] | None:
    if value is None:
        return None
    selected = parse_seeds(value, "strength_seeds")
    if not set(selected) <= set(seeds):
        raise ValueError(
            f"strength_seeds: expected some of the seeds {list(seeds)}, got {list(selected)}: "
            "select strengths on seeds that are trained"
        )
    return selected


def _known(name: Any, names: Sequence[str], place: str) -> str:
    if name not in names:
        raise ValueError(f"{place}: expected one of {', '.join(names)}, got {name}: name an arm")
    return str(name)
