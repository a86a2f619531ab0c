"""Files that a search writes: recipe, model, results and page."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.commands.compare.judging.notes import split_notes
from lit_entrodrop.commands.compare.judging.results import FILE_NAME as COMPARISON
from lit_entrodrop.commands.compare.judging.results import ComparisonInputs, judge
from lit_entrodrop.commands.export.command import export
from lit_entrodrop.commands.tune.result.finals import Finals
from lit_entrodrop.commands.tune.result.page import write_page
from lit_entrodrop.commands.tune.result.recipe import (
    FILE_NAME,
    changes,
    reasons,
    recipe_config,
    recipe_text,
)
from lit_entrodrop.commands.tune.result.summary import (
    cost_sentence,
    counts_sentence,
    summarize,
)
from lit_entrodrop.commands.tune.search.studies import Studies
from lit_entrodrop.runs.layout import find_checkpoint
from lit_entrodrop.runs.writing import write_json, write_whole
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.provenance import location

RESULTS, MODEL = "tune.json", "model"


def write_results(
    finals: Finals,
    studies: Studies,
    config: Mapping[str, Any],
    seconds: float,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Write all files, print the verdict, and return the content of ``tune.json``."""
    trials = studies.outcomes()
    content = summarize(finals, trials, studies.importances(), seconds, folder)
    write_json(folder / RESULTS, content)
    recipe = recipe_config(finals, config)
    changed = changes(config, recipe)
    sentences = [*reasons(finals), counts_sentence(trials), cost_sentence(content["cost"])]
    text = recipe_text(recipe, changed, sentences, location(folder))
    write_whole(folder / FILE_NAME, text)
    console.print(f"{content['sentence']}.", style="bold", markup=False, highlight=False)
    for sentence in sentences[1:]:
        console.print(sentence, markup=False, highlight=False)
    console.print(f"recipe: {folder / FILE_NAME}", markup=False, soft_wrap=True)
    comparison = _comparison(finals, folder)
    write_json(folder / COMPARISON, comparison)
    console.print(f"model: {_export(finals, folder)}", markup=False, soft_wrap=True)
    try:
        page = write_page(finals, trials, content, comparison, sentences, changed, folder)
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    except Exception as error:  # the results of hours of training are already written
        reason = f"{type(error).__name__}: {one_line(error)}"
        console.print(f"report: none could be written, {reason}", markup=False, soft_wrap=True)
    return content


def _comparison(finals: Finals, folder: Path) -> dict[str, Any]:
    """Return the content of ``comparison.json``: the winner against plain on the test split."""
    winner, plain = finals.tested
    trials = [plain, winner]
    notes = split_notes("test", True, trials)
    return judge(ComparisonInputs("tune", plain.arm, (), trials, "test", notes), folder)


def _export(finals: Finals, folder: Path) -> Path:
    """Export the run of the recipe with the best validation loss."""
    checkpoint = find_checkpoint("best", finals.best_run.folder)
    assert checkpoint is not None, "a finished run has a best checkpoint"
    output = folder / MODEL
    # That of an earlier session with a smaller budget.
    shutil.rmtree(output, ignore_errors=True)
    return export(str(checkpoint), str(output))
