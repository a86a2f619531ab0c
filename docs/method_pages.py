"""Write a page for each method and for each module, from classes, docstrings and results.

There is no list to keep: a method has a page as soon as it has a file.
"""

import json
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import regularizers
from lit_entrodrop.catalog.description import Description, Setting, describe
from regularizers import Regularizer
from regularizers.discovery import own_regularizers

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
RESULTS = "benchmarks/results/regularizers.json"
CONFIGS = "configs/regularizers"


def write_pages(root: Path, folder: Path) -> None:
    """Write ``methods/*.rst`` and ``reference/*.rst``.

    Args:
        root: the repository, with configs and results.
        folder: of the sources of the site.
    """
    kinds = own_regularizers()
    measured = read_results(root / RESULTS)
    methods = [facts(root, name, kind, measured) for name, kind in kinds.items()]
    pages = folder / "methods"
    for method in methods:
        write(pages / f"{method['name']}.rst", "method", **method)
    models = list(dict.fromkeys(row["model"] for row in measured))
    write(pages / "index.rst", "methods", methods=methods, models=models)

    modules = [name for name in public_modules() if name not in {m["module"] for m in methods}]
    for module in modules:
        write(folder / "reference" / f"{module}.rst", "module", module=module)
    write(folder / "reference" / "index.rst", "modules", modules=modules)


def facts(
    root: Path, name: str, kind: type[Regularizer], measured: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return all that the page of a method tells.

    Args:
        root: the repository.
        name: of the class.
        kind: the class.
        measured: rows of the results.
    """
    description = describe(kind, f"regularizers.{name}", "lit-entrodrop")
    return {
        **vars(description),
        "module": kind.__module__,
        "passes": passes(description),
        "strength": strength(description),
        "settings": [{**vars(each), "told": default(each)} for each in description.settings],
        "measured": [
            {"model": row["model"], "told": told(row)} for row in measured if row["case"] == name
        ],
        "configs": list(configs_of(root, description.class_path)),
    }


def passes(description: Description) -> str:
    """Tell how often a step runs the model.

    >>> from regularizers import EntroDrop
    >>> passes(describe(EntroDrop, "regularizers.EntroDrop", ""))
    '1'
    """
    frozen = description.frozen_passes
    return f"{description.gradient_passes}" + (f" + {frozen} without gradient" if frozen else "")


def strength(description: Description) -> str:
    """Tell where the default curriculum begins and ends."""
    if description.strength is None:
        return "–"
    start, end = (f"{value:.2g}" for value in description.strength)
    return start if start == end else f"{start} to {end}"


def default(setting: Setting) -> str:
    """Tell the default of a setting as in a config, a class by its name and settings."""
    value = setting.default
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{key}={each}" for key, each in value["init_args"].items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return yaml.safe_dump(value).removesuffix("\n...\n").strip() if setting.is_plain else str(value)


def told(row: dict[str, Any]) -> str:
    """Tell a row of the results: the ratio to a plain step, or why there is none.

    >>> told({"ratio": 1.234, "ratio_iqr": 0.05})
    '1.23 (0.05)'
    """
    if "refused" in row:
        return "not measured"
    return f"{row['ratio']:.2f} ({row['ratio_iqr']:.2f})"


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the results, none if there are none."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def configs_of(root: Path, class_path: str) -> Iterator[str]:
    """Yield the configs that name a class, as paths in the repository."""
    for path in sorted((root / CONFIGS).glob("*.yaml")):
        entries = yaml.safe_load(path.read_text())["model"]["regularizers+"]
        if class_path in {each["class_path"] for each in entries}:
            yield path.relative_to(root).as_posix()


def public_modules() -> list[str]:
    """Return the names of all modules of ``regularizers``."""
    return [each.name for each in pkgutil.walk_packages(regularizers.__path__, "regularizers.")]


def write(path: Path, template: str, **values: Any) -> None:
    """Fill in a template.

    Args:
        path: of the page.
        template: its name, without ending.
        values: what it names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATES.get_template(f"{template}.rst.jinja").render(values), "utf-8")
