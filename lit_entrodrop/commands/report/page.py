"""The page of a report: one self-contained HTML file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from lit_entrodrop import __version__
from lit_entrodrop.commands.report.comparison_sections.conclusion import conclude_comparison
from lit_entrodrop.commands.report.comparison_sections.differences import (
    MOMENTS,
    forest,
    label,
    metrics_by_table,
    with_interval,
)
from lit_entrodrop.commands.report.comparison_sections.frontier import frontier
from lit_entrodrop.commands.report.comparison_sections.ladder import ladder_figure
from lit_entrodrop.commands.report.comparison_sections.sweeps import sweep_figure
from lit_entrodrop.commands.report.records.run_record import RunRecord, read_run
from lit_entrodrop.commands.report.rendering import formatting
from lit_entrodrop.commands.report.rendering.templating import environment
from lit_entrodrop.commands.report.run_sections.conclusion import conclude_run, conclude_runs
from lit_entrodrop.commands.report.run_sections.losses import side_by_side
from lit_entrodrop.commands.report.run_sections.passages import palette
from lit_entrodrop.commands.report.run_sections.view import run_view
from lit_entrodrop.evaluation.conclusion import Conclusion
from lit_entrodrop.evaluation.diagnosis import RULE
from lit_entrodrop.runs.criterion import best_value_of
from lit_entrodrop.runs.writing import write_whole
from lit_entrodrop.training.provenance import location

FILE_NAME = "report.html"
# Text and style of each kind of verdict.
VERDICTS = {
    "overfits": ("overfits", "bad"),
    "diverges": ("diverges", "bad"),
    "holds": ("no overfitting shown", "good"),
    "unknown": ("too little data", "none"),
}


def write_report(
    folder: Path,
    runs: Mapping[str, Path],
    comparison: Mapping[str, Any] | None = None,
    title: str = "",
    conclusion: Conclusion | None = None,
    sections: Mapping[str, str] | None = None,
    body: str = "",
) -> Path:
    """Write ``report.html``, and its figures as separate files in ``figures/``.

    Args:
        folder: Folder to write to.
        runs: Run folders by name; of a comparison one run of each arm, in the order of the arms.
        comparison: Content of ``comparison.json``; None if the runs were not compared.
        title: Subject of the page, below the headline; by default the folder of the run.
        conclusion: Finding with which the page begins; by default that of the runs.
        sections: Titles of the sections in ``body`` by their anchor, for the contents.
        body: HTML (`Markup`) between the finding and the runs.

    Returns:
        Path to the page, a single file that needs no network.

    Raises:
        ValueError: If there is neither a run nor a comparison, or a run has no validation loss.
    """
    if not runs and comparison is None:
        raise ValueError("report: expected at least one run, got none: name a run folder")
    figures = folder / "figures"
    records = [read_run(name, Path(path)) for name, path in runs.items()]
    # The page of a comparison can lack runs, as they may have been made on another machine.
    many = len(records) > 1 or comparison is not None
    page = (
        _environment()
        .get_template("template.html.j2")
        .render(
            title=title or ("Training runs" if many else f"Training run: {records[0].location}"),
            version=__version__,
            many=many,
            conclusion=conclusion or _conclusion(records, comparison, folder),
            sections=sections or {},
            body=body,
            views=[
                run_view(run, figures, f"{slug(run.name)}-{i}-" if many else "")
                for i, run in enumerate(records, 1)
            ],
            side_by_side=side_by_side(records, figures, "runs") if len(records) > 1 else None,
            **_compared(comparison, figures),
            diagnosed=any(run.diagnosis for run in records),
            rule=RULE,
            verdicts=VERDICTS,
            palette=palette(),
        )
    )
    path = folder / FILE_NAME
    write_whole(path, page)
    return path


def slug(name: str) -> str:
    """Return a name that can be part of a link and of a file name.

    >>> slug("EntroDrop, 0.9")
    'entrodrop-0-9'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _conclusion(
    records: Sequence[RunRecord], comparison: Mapping[str, Any] | None, folder: Path
) -> Conclusion:
    if comparison is not None:
        return conclude_comparison(comparison, records, location(folder))
    return conclude_runs(records) if len(records) > 1 else conclude_run(records[0])


def _compared(comparison: Mapping[str, Any] | None, figures: Path) -> dict[str, Any]:
    if comparison is None:
        return {"comparison": None}
    losses, others = metrics_by_table(comparison)
    return {
        "comparison": comparison,
        "forest": forest(comparison, figures, "comparison"),
        "frontier": frontier(comparison, figures, "frontier"),
        "sweeps": sweep_figure(comparison, figures, "strengths"),
        "ladder": ladder_figure(comparison, figures, "ladder"),
        "moments": MOMENTS,
        "losses": losses,
        "other_values": others,
        "of_arms": {name: arm["metrics"] for name, arm in comparison["arms"].items()},
        "of_contrasts": {
            label(each): each["metrics"] for each in comparison["contrasts"] if each["is_contrast"]
        },
    }


def _environment() -> Environment:
    found = environment("lit_entrodrop.commands.report")
    found.filters |= {
        "label": label,
        "with_interval": with_interval,
        "value": formatting.number,
        "difference": formatting.difference,
        "metric_title": formatting.title,
        "best_value": best_value_of,
    }
    return found
