"""A whole search on the tiny model, killed and continued."""

import json
import os
import shutil
import time
from copy import deepcopy
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.running.process_pool import Task, Workers
from lit_entrodrop.commands.tune.result.finals import Finalist, Finals, run_finals
from lit_entrodrop.commands.tune.result.recipe import reasons
from lit_entrodrop.commands.tune.search.budget import Budget, Limits
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.search.search import Search
from lit_entrodrop.commands.tune.search.studies import Studies
from lit_entrodrop.commands.tune.space.checks import check_config, check_space
from lit_entrodrop.commands.tune.space.space import parse_space
from lit_entrodrop.runs.evaluations import read_run_info, write_run_info
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from tests.helpers.comparing import start_forked, times
from tests.helpers.processes import fork, kill
from tests.helpers.run_folder import STEPS, write_run
from tests.helpers.tiny import Tiny
from tests.helpers.tuning import SPACE, console, searched, tiny_config

TRIALS = 4
WORKERS = Workers(start=start_forked)


@pytest.fixture(scope="module")
def output(tiny_module: Tiny) -> Path:
    return tiny_module.folder / "tuned"


@pytest.fixture(scope="module")
def finished(tiny_module: Tiny, output: Path) -> tuple[Finals, dict[str, Any], str]:
    """Kill a search after its first trial, and start it again."""
    process = fork(_search, tiny_module, output)
    first, second = (output / "trials" / name for name in ("plain-000", "methods-000"))
    deadline = time.monotonic() + 600
    while not second.exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill(process)
    before = times(first)
    finals, printed = searched(tiny_module, output, TRIALS)
    assert times(first) == before
    return finals, json.loads((output / "tune.json").read_text()), printed


def _search(tiny: Tiny, output: Path) -> None:
    searched(tiny, output, TRIALS)


def test_killed_search_ends_with_the_trials_of_its_budget(
    finished: tuple[Finals, dict[str, Any], str], output: Path
) -> None:
    _, content, printed = finished
    assert [trial["name"] for trial in content["trials"]] == [
        "plain-000",
        "plain-001",
        "methods-000",
        "methods-001",
    ]
    assert {trial["state"] for trial in content["trials"]} == {"finished"}
    folders = sorted(path.parent.name for path in (output / "trials").rglob(METRICS))
    assert folders == sorted(trial["name"] for trial in content["trials"])
    assert not list((output / "trials").rglob("*.ckpt"))
    assert "4 trials, 2 of plain fine-tuning and 2 of the whole space: 4 finished." in printed
    assert "best so far: replacement" in printed
    # One run of the config has two epochs.
    epochs = {t["name"]: t["values"]["trainer.max_epochs"] for t in content["trials"]}
    assert content["cost"]["search"] == sum(epochs.values()) / 2
    final = [epochs[each["trial"]] for each in content["finalists"].values()]
    assert content["cost"]["final"] == 2 * sum(final) / 2


def test_winner_and_plain_are_tested_with_new_seeds(
    finished: tuple[Finals, dict[str, Any], str], output: Path
) -> None:
    finals, content, _ = finished
    comparison = json.loads((output / "comparison.json").read_text())
    assert comparison["split"] == "test"
    assert comparison["seeds"] == [1, 2]
    assert list(comparison["arms"]) == ["plain", finals.winner.name]
    [contrast] = comparison["contrasts"]
    assert contrast["difference"] == content["test"]["difference"]
    assert contrast["samples"] == 2
    assert content["verdict"] == contrast["verdict"] == finals.finding.verdict


def test_recipe_trains_and_model_loads(
    finished: tuple[Finals, dict[str, Any], str], output: Path, tmp_path: Path
) -> None:
    finals, content, printed = finished
    text = (output / "recipe.yaml").read_text()
    assert text.startswith("# Use this ")
    assert content["sentence"] in printed
    recipe = yaml.safe_load(text)
    assert recipe["seed_everything"] == 0
    chosen = finals.chosen.trial.sample.plain
    assert recipe["trainer"]["max_epochs"] == chosen["trainer.max_epochs"]
    assert f"max_epochs: {chosen['trainer.max_epochs']}" in text
    changes = ["--trainer.max_steps", "1", "--trainer.default_root_dir", str(tmp_path)]
    main(["fit", "--config", str(output / "recipe.yaml"), *changes])
    assert AutoModelForCausalLM.from_pretrained(output / "model").config.vocab_size == 320


def test_page_has_verdict_recipe_and_search(
    finished: tuple[Finals, dict[str, Any], str], output: Path
) -> None:
    page = (output / "report.html").read_text()
    for text in (
        f'<h1 id="verdict">{finished[1]["sentence"]}',
        "Changes to the config of the search",
        "times one run of the config",
        "need at least 10 finished trials",
        '<a href="#search">Search</a>',
        "Run: plain, seed 1",
    ):
        assert text in page, text
    assert (output / "figures/settings.svg").exists()


def test_method_that_diverges_with_a_new_seed_is_left_out(
    finished: tuple[Finals, dict[str, Any], str], tmp_path: Path
) -> None:
    """The others are finished, so one run trains: its learning rate makes the loss infinite."""
    finals, shown = finished[0], console()
    [run, *_] = finals.winner.runs
    place, own = tmp_path / "diverges", deepcopy(dict(run.config))
    own["model"]["optimizer"]["init_args"]["lr"] = 1e20
    own["trainer"]["default_root_dir"] = str(place)
    diverging = Finalist("wild", finals.winner.trial, [replace(run, folder=place, config=own)] * 2)
    again = run_finals([finals.plain, finals.winner, diverging], WORKERS, shown[0])
    assert again.winner == finals.winner
    assert again.finding == finals.finding
    assert "Left out, as a run with a new seed diverged: wild." in shown[1].getvalue()
    assert "wild was left out: a run with a new seed diverged." in reasons(again)
    # Without another method, there is nothing to test.
    with pytest.raises(ValueError, match="runs failed"):
        run_finals([finals.plain, diverging], WORKERS, shown[0])


def test_hopeless_run_is_stopped(tiny: Tiny) -> None:
    """Its loss rises, and the trials before had lower ones."""
    config, folder = tiny_config(tiny), tiny.folder / "pruned"
    space = parse_space(SPACE).around(config)
    studies = Studies(folder, space, config)
    for _ in range(8):
        opened = studies.ask()
        studies.report(opened, [(tenth, 0.1) for tenth in range(1, 11)])
        studies.finish(opened, TrialOutcome("", 0, "finished", opened.sample, score=0.1))
    budget, (output, printed) = Budget(Limits(None, 9), 1), console()
    trials = Search(studies, space, config, folder, budget, output).run(Workers(start=overfitting))
    last = next(trial for trial in trials if trial.name == "plain-004")
    assert last.state == "pruned"
    # Before the hour that it would take.
    assert 0 < last.seconds < 600
    assert "plain-004 seed 0: pruned at epoch" in printed.getvalue()


def overfitting(task: Task, environment: dict[str, str]) -> BaseProcess:
    """Start a process that has overfitted and does not end by itself."""
    return fork(_overfit, task.log.parents[1])


def _overfit(folder: Path) -> None:
    os.setsid()
    written = write_run(folder.with_name("written"), epochs=20)
    write_run_info(written, {**read_run_info(written), "total_steps": 25 * STEPS})
    shutil.copytree(written, folder, dirs_exist_ok=True)
    time.sleep(3600)


def test_config_that_cannot_be_searched_is_refused(tiny: Tiny) -> None:
    config = tiny_config(tiny)
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=rf"data\.{split}: expected a {split} split"):
            check_config({**config, "data": {**config["data"], split: None}})
    methods = {**config["model"], "regularizers": [{"class_path": "regularizers.EntroDrop"}]}
    with pytest.raises(ValueError, match="put them into `methods` of your --space"):
        check_config({**config, "model": methods})


def test_unknown_setting_is_refused(tiny: Tiny) -> None:
    space = parse_space({**SPACE, "plain": {"model.optimizer.init_args.rate": [0.1, 0.2]}})
    with pytest.raises(ValueError, match=r"expected an existing setting \(lr, .*, got model\.opt"):
        check_space(tiny_config(tiny), space)


def test_missing_budget_or_corpus_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    arguments = ["tune", *tiny.config(), "--output", str(tmp_path / "tuned")]
    with pytest.raises(SystemExit, match="budget: expected --budget or --trials, got neither"):
        main(arguments)
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"methods": {"decay": [{"model": {"average": None}}]}}))
    own = ["--space", str(space), "--trials", "4", "--data.test", "0.2", "--data.corpus", "no.txt"]
    with pytest.raises(SystemExit, match=r"no\.txt"):
        main([*arguments, *own])
    assert not (tmp_path / "tuned").exists()
