"""The page: one HTML file that needs nothing beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lit_entrodrop import __version__
from lit_entrodrop.commands.report.comparison import forest, label, number, sentences, tables
from lit_entrodrop.commands.report.glossary import glossary
from lit_entrodrop.commands.report.losses import side_by_side
from lit_entrodrop.commands.report.passages import palette
from lit_entrodrop.commands.report.run import read_run
from lit_entrodrop.commands.report.summary import summarize
from lit_entrodrop.commands.report.views import headline, view

FILE_NAME = "report.html"
# An option with its value, or a checkpoint, as sentences of a diagnosis name them.
OPTION = re.compile(r"(?<![`\w-])(--[\w.]+(?: [\w./]*\w)?|[\w/]+\.ckpt)")


def write_report(
    folder: Path,
    runs: Mapping[str, Path],
    comparison: Mapping[str, Any] | None = None,
    title: str = "",
) -> Path:
    """Write ``report.html``, and its figures as files of their own to ``figures/``.

    Args:
        folder: to write to.
        runs: folder of each run, by name.
        comparison: what `compare` keeps in ``comparison.json``, if runs were compared.
        title: of the page.

    Returns:
        The page, a single file that needs no network.

    Raises:
        ValueError: if there is no run, or one has not validated.
    """
    if not runs:
        raise ValueError("report: expected at least one run, got none: name the folder of a run")
    figures = folder / "figures"
    read = [read_run(name, Path(path)) for name, path in runs.items()]
    many = len(read) > 1
    page = (
        _environment()
        .get_template("template.html.j2")
        .render(
            title=title or ("Training runs" if many else f"Training run: {read[0].name}"),
            version=__version__,
            views=[
                view(run, figures, f"{slug(run.name)}-{i}-" if many else "")
                for i, run in enumerate(read, 1)
            ],
            summary=summarize(runs).to_dict("index") if many else {},
            side_by_side=side_by_side(read, figures, "runs") if many else None,
            **_compared(comparison, figures),
            glossary=glossary(read, comparison is not None),
            palette=palette(),
        )
    )
    path = folder / FILE_NAME
    path.write_text(page, encoding="utf-8")
    return path


def slug(name: str) -> str:
    """Return a name that may stand in a link and a file's name.

    >>> slug("EntroDrop, 0.9")
    'entrodrop-0-9'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _compared(comparison: Mapping[str, Any] | None, figures: Path) -> dict[str, Any]:
    if comparison is None:
        return {"comparison": None}
    return {
        "comparison": comparison,
        "sentences": sentences(comparison),
        "tables": tables(comparison),
        "forest": forest(comparison, figures, "comparison"),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lit_entrodrop.commands.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "headline": headline,
        "code": _code,
        "label": label,
        "number": number,
        "unbroken": _unbroken,
        "epoch": _epoch,
        "loss": _loss,
        "p": _p,
    }
    return environment


def _loss(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def _unbroken(text: str) -> str:
    """Keep an interval on one line."""
    return text.replace(", ", ",\N{NO-BREAK SPACE}")


def _epoch(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _code(text: str) -> Markup:
    """Set what stands between backquotes as code, and options and checkpoints."""
    told = re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", str(text))
    parts = OPTION.sub(r"`\1`", told).split("`")
    return Markup("").join(_kept(part) if i % 2 else escape(part) for i, part in enumerate(parts))


def _kept(code: str) -> Markup:
    # Browsers would end a line between the hyphens of an option and its name.
    words = (Markup("<span>{}</span>").format(word) for word in code.split(" "))
    return Markup("<code>{}</code>").format(Markup(" ").join(words))
