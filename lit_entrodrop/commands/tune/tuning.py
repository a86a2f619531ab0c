"""A search from its config to the recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.tune.result.finals import Finals, final_runs, run_finals
from lit_entrodrop.commands.tune.result.outputs import write_results
from lit_entrodrop.commands.tune.search.budget import Budget, Limits, duration
from lit_entrodrop.commands.tune.search.search import Search
from lit_entrodrop.commands.tune.search.studies import Studies, require_optuna
from lit_entrodrop.commands.tune.space.checks import check_config, check_space, prepare_data
from lit_entrodrop.commands.tune.space.space import read_space
from lit_entrodrop.runs.layout import lock_output


def tune(
    config: Mapping[str, Any],
    space_path: str,
    limits: Limits,
    output: Path,
    workers: Workers,
    console: Console,
) -> Finals:
    """Search, train the final runs, and write recipe, model, page and results.

    Args:
        config: Complete config for `fit`.
        space_path: Path to the space.
        limits: Budget and number of seeds.
        output: Folder of all runs and results.
        workers: How many runs train at a time, and how each is started.
        console: Console for the progress.

    Raises:
        ValueError: If config or space are wrong, the budget is too small, or runs fail.
    """
    require_optuna()
    check_config(config)
    space = read_space(space_path).around(config)
    console.print("Checking every method of the space, and reading the text.")
    check_space(config, space)
    prepare_data(config)
    with lock_output(output, "tune"):
        studies = Studies(output, space, config)
        budget = Budget(limits, workers.count, studies.seconds)
        shown = "" if limits.seconds is None else f" within {duration(limits.seconds)}"
        console.print(
            f"Searching{shown}, {workers.count} run{'s' * (workers.count > 1)} at a time, in "
            f"{output}.",
            soft_wrap=True,
        )
        trials = Search(studies, space, config, output, budget, console).run(workers)
        planned = final_runs(config, space, trials, limits.seeds, output)
        try:
            finals = run_finals(planned, workers, console)
        finally:
            studies.set_seconds(budget.spent)
        write_results(finals, studies, config, budget.spent, output, console)
    return finals
