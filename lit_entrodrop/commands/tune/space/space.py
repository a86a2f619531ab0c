"""Space of a search, which a YAML file describes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_entrodrop.cli.config_files import find_config
from lit_entrodrop.cli.yaml_text import read_yaml
from lit_entrodrop.commands.compare.planning.parsing import NAME, Config, parse_arm, parse_mapping
from lit_entrodrop.commands.tune.space.dimensions import Dimension, Range, parse_dimension
from lit_entrodrop.commands.tune.space.sample import Sample

if TYPE_CHECKING:
    from optuna.trial import Trial

KEYS = {"plain", "methods", "additions"}
METHOD = "method"


@dataclass(frozen=True)
class Alternative:
    """One of several ways of training: what it adds to the config, and its strengths."""

    configs: tuple[Config, ...] = ()
    strengths: Mapping[str, Dimension] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether it changes nothing."""
        return not self.configs and not self.strengths


@dataclass(frozen=True)
class Space:
    """What a search may try; configs/tune/space.yaml explains each key.

    Args:
        plain: Settings by dotted name, searched for plain fine-tuning and with every method.
        groups: Alternatives by name, by group; one of each group is drawn. The first group is that
            of the methods.
        settings: Further settings, searched with methods only.
    """

    plain: Mapping[str, Dimension]
    groups: Mapping[str, Mapping[str, Alternative]]
    settings: Mapping[str, Dimension] = field(default_factory=dict)

    def suggest(self, trial: "Trial", is_whole: bool) -> Sample:
        """Draw from the whole space, or from the settings of plain fine-tuning."""
        settings = {name: each.suggest(trial, name) for name, each in self.plain.items()}
        if not is_whole:
            return Sample(settings)
        drawn = {name: each.suggest(trial, name) for name, each in self.settings.items()}
        alternatives = {}
        for group, named in self.groups.items():
            name = trial.suggest_categorical(group, list(named))
            strengths = {
                setting: each.suggest(trial, f"{group}.{name}.{setting}")
                for setting, each in named[name].strengths.items()
            }
            if not named[name].is_plain:
                alternatives[group] = name, strengths
        return Sample(settings, alternatives, drawn)

    def start(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the plain settings in a config, moved into their ranges."""
        values = {name: each.nearest(_value(config, name)) for name, each in self.plain.items()}
        return {name: value for name, value in values.items() if value is not None}

    def corners(self) -> Iterator[Sample]:
        """Return samples that contain each alternative, and both ends of each dimension."""
        for end in (0, 1):
            yield Sample({name: each.ends[end] for name, each in self.plain.items()})
        groups = [
            [(group, name, each) for name, each in named.items() if not each.is_plain]
            for group, named in self.groups.items()
        ]
        for row in zip_longest(*groups):
            for end in (0, 1):
                yield Sample(
                    {name: each.ends[end] for name, each in self.plain.items()},
                    {
                        group: (name, {n: d.ends[end] for n, d in each.strengths.items()})
                        for group, name, each in filter(None, row)
                    },
                    {name: each.ends[end] for name, each in self.settings.items()},
                )

    def around(self, config: Mapping[str, Any]) -> "Space":
        """Return the space for a complete config, in which no range depends on the config.

        Raises:
            ValueError: If a range is relative to a setting that is not a positive number.
        """

        def fitted(dimensions: Mapping[str, Dimension], place: str) -> dict[str, Dimension]:
            return {
                name: each.around(_value(config, name), f"{place}.{name}")
                if isinstance(each, Range)
                else each
                for name, each in dimensions.items()
                if not isinstance(each, Range) or not each.if_set or _value(config, each.if_set)
            }

        groups = {
            group: {
                name: Alternative(each.configs, fitted(each.strengths, f"{group}.{name}"))
                for name, each in named.items()
            }
            for group, named in self.groups.items()
        }
        return Space(fitted(self.plain, "plain"), groups, fitted(self.settings, "additions"))


def read_space(path: str) -> Space:
    """Read and check a space: a YAML file, or the name of a bundled config.

    Raises:
        ValueError: If it is wrong.
    """
    file = find_config(path, Path())
    return parse_space(read_yaml(file, "space"), file.parent)


def parse_space(content: Any, folder: Path = Path()) -> Space:
    """Check the content of a space; config files are also searched in ``folder``.

    Raises:
        ValueError: If it is wrong.

    >>> parse_space({
    ...     "plain": {"trainer.max_epochs": {"low": 2, "high": 9}},
    ...     "methods": {"none": [], "mine": [{"model": {}}]},
    ... }).plain["trainer.max_epochs"].ends
    (2, 9)
    """
    given = parse_mapping(content, "space", KEYS)
    plain = parse_mapping(given.get("plain") or {}, "plain")
    methods = _alternatives(given.get("methods"), "methods", folder)
    if all(each.is_plain for each in methods.values()):
        raise ValueError("methods: expected at least one that changes something, got none: add one")
    groups, settings = {METHOD: methods}, {}
    for name, value in parse_mapping(given.get("additions") or {}, "additions").items():
        place = f"additions.{name}"
        if "." in name:
            settings[str(name)] = parse_dimension(value, place)
        else:
            groups[str(name)] = _alternatives(value, place, folder)
    dimensions = {str(name): parse_dimension(each, f"plain.{name}") for name, each in plain.items()}
    return Space(dimensions, groups, settings)


def _alternatives(value: Any, place: str, folder: Path) -> dict[str, Alternative]:
    named = parse_mapping(value, place)
    return {str(n): _alternative(each, f"{place}.{n}", str(n), folder) for n, each in named.items()}


def _alternative(value: Any, place: str, name: str, folder: Path) -> Alternative:
    if not NAME.fullmatch(name):
        raise ValueError(f"{place}: expected a name of letters, digits and _, got {name!r}")
    configs, strengths = parse_arm(value, place, folder)
    dimensions = {
        str(n): parse_dimension(each, f"{place}.strengths.{n}") for n, each in strengths.items()
    }
    return Alternative(configs, dimensions)


def _value(config: Mapping[str, Any], name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
