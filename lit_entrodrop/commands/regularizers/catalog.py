"""Catalog of all regularizers: built-in ones, and those that installed packages announce."""

from dataclasses import dataclass
from typing import Any

from lit_entrodrop import __version__
from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.cli.yaml_text import load_yaml
from lit_entrodrop.commands.regularizers.description import Description, describe
from regularizers.base import Regularizer
from regularizers.discovery import Installed, installed_regularizers, own_regularizers


@dataclass(frozen=True)
class Catalog:
    """Regularizers by name, built-in ones first, and errors of announced ones."""

    descriptions: dict[str, Description]
    problems: list[str]


def find_all() -> Catalog:
    """Describe all regularizers that a config can name by their class alone.

    >>> find_all().descriptions["EntroDrop"].class_path
    'regularizers.EntroDrop'
    """
    descriptions = {
        name: describe(
            kind, f"regularizers.{name}", "lit-entrodrop", __version__, _companions(kind)
        )
        for name, kind in own_regularizers().items()
    }
    installation = installed_regularizers()
    problems = list(installation.problems)
    for found in sorted(installation.regularizers.values(), key=lambda each: each.package):
        described = _describe(found)
        if isinstance(described, Description):
            descriptions[described.name] = described
        else:
            problems.append(described)
    return Catalog(descriptions, problems)


def _companions(kind: type[Regularizer]) -> dict[str, Any]:
    # Each built-in regularizer has a bundled config with the name of its file.
    config = config_path(f"regularizers/{kind.__module__.rpartition('.')[2]}.yaml")
    companions: dict[str, Any] = load_yaml(config.read_text("utf-8"))
    del companions["model"]["regularizers+"]
    return companions


def _describe(found: Installed) -> Description | str:
    try:
        return describe(found.kind, found.class_path, found.package, found.version)
    # Code of other packages may raise anything, or exit.
    except (Exception, SystemExit) as error:
        return (
            f"{found.package} {found.version} announces {found.kind.__name__}: building it from "
            f"its defaults raised {type(error).__name__}: {error}: ask its author to correct it"
        )
