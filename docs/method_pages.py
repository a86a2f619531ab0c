"""Write a page for each method and each module from classes, docstrings and results.

Methods are discovered, so a new method needs no edit here.
"""

import json
import pkgutil
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import regularizers
from lit_entrodrop.commands.regularizers.catalog import find_all
from lit_entrodrop.commands.regularizers.combinations import refusals
from lit_entrodrop.commands.regularizers.showing import cost_of, in_short, strength_of
from regularizers.discovery import own_regularizers

RESULTS = "benchmarks/results/regularizers.json"
CONFIGS = "configs/regularizers"
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def write_pages(root: Path, folder: Path) -> None:
    """Write ``methods/*.rst`` and ``reference/*.rst``.

    Args:
        root: Root of the repository, with configs and results.
        folder: Folder of the sources of the site.
    """
    kinds = own_regularizers()
    described = find_all().descriptions
    methods = [described[name] for name in kinds]
    shared = {"steps": read_steps(root / RESULTS), "refused": refusals(methods)}
    for method in methods:
        configs = configs_of(root, method.name)
        page = folder / "methods" / f"{method.name}.rst"
        write(page, "method", method=method, configs=configs, **shared)
    write(folder / "methods" / "index.rst", "methods", methods=methods, **shared)

    of_methods = {kind.__module__ for kind in kinds.values()}
    modules = [name for name in module_names() if name not in of_methods]
    for module in modules:
        write(folder / "reference" / f"{module}.rst", "module", module=module)
    write(folder / "reference" / "index.rst", "modules", modules=modules)


def read_steps(path: Path) -> dict[str, dict[str, str]]:
    """Return relative step times by model and method; empty without results.

    Args:
        path: Path to the results of ``benchmarks.regularizers``.
    """
    steps: dict[str, dict[str, str]] = {}
    for row in json.loads(path.read_text())["rows"] if path.exists() else []:
        cell = "refused" if "refused" in row else f"{row['ratio']:.2f} ({row['ratio_iqr']:.2f})"
        steps.setdefault(row["model"], {})[row["case"]] = cell
    return steps


def configs_of(root: Path, name: str) -> list[str]:
    """Return paths of the configs that use a regularizer, relative to the repository."""
    paths = sorted((root / CONFIGS).glob("*.yaml"))
    return [path.relative_to(root).as_posix() for path in paths if name in named_by(path)]


def named_by(config: Path) -> set[str]:
    """Return names of the regularizers that a config adds."""
    entries = yaml.safe_load(config.read_text()).get("model", {}).get("regularizers+", [])
    return {each["class_path"].rpartition(".")[2] for each in entries}


def module_names() -> list[str]:
    """Return the names of all modules of ``regularizers``.

    >>> "regularizers.base" in module_names()
    True
    """
    return [each.name for each in pkgutil.walk_packages(regularizers.__path__, "regularizers.")]


def with_links(source: str) -> str:
    """Link a source to arXiv.

    >>> with_links("Lin et al. 2017, arXiv 1708.02002.")
    'Lin et al. 2017, `arXiv 1708.02002 <https://arxiv.org/abs/1708.02002>`__.'
    """
    return ARXIV.sub(r"`\g<0> <https://arxiv.org/abs/\1>`__", source)


def without_details(source: str) -> str:
    """Return a source up to its arXiv number.

    >>> without_details("Lin et al. 2017, arXiv 1708.02002, equation 4.")
    'Lin et al. 2017, arXiv 1708.02002'
    """
    number = ARXIV.search(source)
    return source[: number.end()] if number else source


def write(path: Path, template: str, **values: Any) -> None:
    """Render a template.

    Args:
        path: Path of the page.
        template: Name of the template, without suffix.
        values: Variables of the template.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATES.get_template(f"{template}.rst.jinja").render(values), "utf-8")


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    function.__name__: function
    for function in (cost_of, strength_of, in_short, with_links, without_details)
}
