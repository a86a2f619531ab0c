"""The page of a search: the verdict, the recipe, the search and the tested runs."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lit_entrodrop.commands.report import write_report
from lit_entrodrop.commands.report.rendering.templating import environment
from lit_entrodrop.commands.tune.result import figures
from lit_entrodrop.commands.tune.result.decision import use_winner
from lit_entrodrop.commands.tune.result.finals import Finals
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.search.studies import FEWEST_FOR_IMPORTANCE
from lit_entrodrop.evaluation.conclusion import Conclusion, NextStep
from lit_entrodrop.training.provenance import location

PACKAGE = "lit_entrodrop.commands.tune.result"


def write_page(
    finals: Finals,
    trials: Sequence[TrialOutcome],
    content: Mapping[str, Any],
    comparison: Mapping[str, Any],
    sentences: Sequence[str],
    changes: Sequence[str],
    folder: Path,
) -> Path:
    """Write ``report.html`` and its figures, and return its path.

    Args:
        finals: Results of the final runs.
        trials: Trials of the search.
        content: Content of ``tune.json``.
        comparison: Content of ``comparison.json``.
        sentences: Why the recipe should be used, and what the search has cost.
        changes: Settings of the recipe that differ from the config of the search.
        folder: Folder to write to.
    """
    place = folder / "figures"
    section = (
        environment(PACKAGE)
        .get_template("search.html.j2")
        .render(
            content=content,
            reason=sentences[0],
            changes=changes,
            progress=figures.progress(trials, place),
            by_setting=figures.by_setting(trials, place),
            importances=figures.importances(content["importances"], place),
            fewest=FEWEST_FOR_IMPORTANCE,
            trials=sorted(
                content["trials"],
                key=lambda each: (each["state"] != "finished", each["score"] or inf),
            ),
        )
    )
    shown = {
        f"{each.name}, seed {each.runs[0].seed}": each.runs[0].folder
        for each in (finals.plain, finals.winner)
    }
    return write_report(
        folder,
        shown,
        comparison,
        "Search for a recipe",
        conclusion=_conclusion(finals, content, sentences, location(folder)),
        sections={"recipe": "Recipe", "search": "Search"},
        body=Markup(section),
    )


def _conclusion(
    finals: Finals, content: Mapping[str, Any], sentences: Sequence[str], place: str
) -> Conclusion:
    steps = [
        NextStep("Train with the recipe.", f"lit-entrodrop fit --config {place}/recipe.yaml"),
        NextStep(
            f"Or use the model that is already trained, in `{place}/model`: the final run of "
            "the recipe with the best validation loss.",
        ),
    ]
    if not use_winner(finals.finding):
        steps.append(
            NextStep(
                "Search longer: start the same command with a larger `--budget`, which keeps "
                "finished trials. Each further look at the test split makes a lucky verdict more "
                "likely."
            )
        )
    return Conclusion(content["sentence"], " ".join(sentences[1:]), steps)
