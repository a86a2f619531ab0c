"""Comparisons of the tiny model from end to end, interrupted and not."""

import html
import io
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_entrodrop.commands.compare.comparing import compare_existing
from lit_entrodrop.commands.compare.existing_runs import group_into_trials, read_existing_run
from lit_entrodrop.commands.compare.judging.results import ComparisonInputs, judge
from lit_entrodrop.commands.compare.planning.planned_run import plan_runs
from lit_entrodrop.commands.compare.planning.settings import parse_settings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.compare.running.training import is_finished, train
from lit_entrodrop.commands.report import write_report
from lit_entrodrop.commands.report.comparison_sections.conclusion import headline
from lit_entrodrop.runs.evaluations import read_run_info
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.comparing import compared, content, start_forked, times
from tests.helpers.processes import fork, kill
from tests.helpers.tiny import Tiny

WITH_TEST = {"data": {"test": 0.3}}


@pytest.fixture(scope="module")
def output(tiny_module: Tiny) -> Path:
    return tiny_module.folder / "compared"


@pytest.fixture(scope="module")
def staged(tiny_module: Tiny, output: Path) -> tuple[dict[str, Any], str, list[str]]:
    """A comparison that selects on one seed: its results, output and folders of runs."""
    base = [*content(tiny_module)["base"], WITH_TEST]
    comparison, printed = compared(tiny_module, output, workers=2, base=base, strength_seeds=[0])
    return comparison, printed, run_folders(output)


@pytest.fixture(scope="module")
def finished(
    staged: tuple[dict[str, Any], str, list[str]], tiny_module: Tiny, output: Path
) -> tuple[dict[str, Any], str]:
    base = [*content(tiny_module)["base"], WITH_TEST]
    return compared(tiny_module, output, workers=2, base=base, title="two arms")


@dataclass(frozen=True)
class Laddered:
    """The comparison of `staged` again, with a ladder, in a copy of all runs."""

    output: Path
    comparison: dict[str, Any]
    printed: str
    before: dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def laddered(finished: tuple[dict[str, Any], str], tiny_module: Tiny, output: Path) -> Laddered:
    ladder = tiny_module.folder / "laddered"
    shutil.copytree(output, ladder, symlinks=True)
    before = {folder: times(ladder / folder) for folder in run_folders(ladder)}
    base = [*content(tiny_module)["base"], WITH_TEST]
    settings = {"base": base, "strength_seeds": [0], "ladder": [0.5, 1]}
    return Laddered(ladder, *compared(tiny_module, ladder, workers=2, **settings), before)


def run_folders(output: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(output)) for path in output.rglob(METRICS))


def test_every_arm_is_trained_at_every_seed(
    finished: tuple[dict[str, Any], str], output: Path
) -> None:
    comparison, _ = finished
    arms = comparison["arms"]
    assert list(arms) == ["plain", "entrodrop"]
    assert [run["seed"] for run in arms["plain"]["runs"]] == [0, 1]
    folders = run_folders(output)
    strengths = [f"entrodrop/max={value}/seed={seed}" for value in (0.4, 0.8) for seed in (0, 1)]
    assert folders == [*strengths, "plain/seed=0", "plain/seed=1"]
    steps = {read_metrics(output / folder).index[-1] for folder in folders}
    assert len(steps) == 1


def test_trial_is_selected_on_validation_and_reported_on_test(
    finished: tuple[dict[str, Any], str], output: Path
) -> None:
    comparison, _ = finished
    arm = comparison["arms"]["entrodrop"]
    assert comparison["split"] == "test"
    losses = {trial["name"]: trial["score"] for trial in arm["trials"]}
    best = min(losses, key=lambda name: losses[name])
    assert (
        [trial["name"] for trial in arm["trials"] if trial["chosen"]] == [best] == [arm["chosen"]]
    )
    runs = [output / "entrodrop" / best / f"seed={seed}" for seed in (0, 1)]
    expected = sum(read_metrics(run)["val/loss"].iloc[1:].min() for run in runs) / 2
    assert losses[best] == pytest.approx(expected)
    # Told of other text than chosen by.
    assert arm["metrics"]["best/loss"]["mean"] != pytest.approx(losses[best], rel=1e-4)
    other = "max=0.8" if best == "max=0.4" else "max=0.4"
    assert not list((output / "entrodrop" / other).rglob("test-step=*"))


def test_results_hold_what_a_reader_needs(
    finished: tuple[dict[str, Any], str], output: Path
) -> None:
    comparison, printed = finished
    assert json.loads((output / "comparison.json").read_text()) == comparison
    metrics = comparison["arms"]["entrodrop"]["metrics"]
    for name in ("best/loss", "last/loss_low_entropy", "last/gap", "last/clean_train_loss"):
        assert metrics[name]["samples"] == 2
        low, high = metrics[name]["interval"]
        assert low <= metrics[name]["difference"] <= high
    assert 0 < metrics["drop_rate"]["mean"] < 0.5
    assert comparison["arms"]["plain"]["verdict"] is None
    assert comparison["arms"]["entrodrop"]["verdict"] in {"better", "worse", "no difference shown"}
    assert "two arms: loss in nats per token on the test split" in printed
    assert "plain had one trial" in printed
    assert printed.count(headline(comparison)) == 1
    page = html.unescape((output / "report.html").read_text())
    assert "two arms" in page
    assert all(note in page for note in comparison["notes"])


def test_selected_strength_alone_is_trained_on_the_other_seeds(
    staged: tuple[dict[str, Any], str, list[str]], finished: tuple[dict[str, Any], str]
) -> None:
    comparison, printed, folders = staged
    chosen = comparison["arms"]["entrodrop"]["chosen"]
    trials = [f"entrodrop/max={value}/seed=0" for value in (0.4, 0.8)]
    assert folders == sorted(
        [*trials, f"entrodrop/{chosen}/seed=1", "plain/seed=0", "plain/seed=1"]
    )
    assert "Comparing 2 arms in 5 runs" in printed
    assert (comparison["seeds"], comparison["strength_seeds"]) == ([0, 1], [0])
    assert "5 of 6 runs are finished already" in finished[1]


def test_runs_of_another_machine_are_imported(
    finished: tuple[dict[str, Any], str], tiny_module: Tiny, output: Path, tmp_path: Path
) -> None:
    shutil.copytree(output / "plain", tmp_path / "plain")
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(finished[0]))
    base = [*content(tiny_module)["base"], WITH_TEST]
    settings = {"base": base, "title": "two arms"}
    again, printed = compared(tiny_module, tmp_path, imported=[earlier], **settings)
    assert "started" not in printed
    assert "4 of 6 runs are imported" in printed
    assert again["contrasts"] == finished[0]["contrasts"]
    for name, arm in finished[0]["arms"].items():
        found = again["arms"][name]
        assert (found["metrics"], found["trials"]) == (arm["metrics"], arm["trials"])
    assert [run["folder"] for run in again["arms"]["entrodrop"]["runs"]] == [None, None]
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "the report has no curves of entrodrop" in page
    assert "export it where its runs were trained" in page or "take that of plain" in page
    # Without any folder, there are no curves at all.
    everywhere = write_report(tmp_path / "none", {}, again)
    assert headline(again) in html.unescape(everywhere.read_text())


def test_changed_config_is_refused(
    finished: tuple[dict[str, Any], str], tiny_module: Tiny, output: Path
) -> None:
    before = {path: times(path) for path in (output / "plain").iterdir()}
    changed = {"model": {"lr_schedule": {"warmup": 1}}, **WITH_TEST}
    base = [*content(tiny_module)["base"], changed]
    with pytest.raises(
        ValueError, match=r"was finished, but model\.lr_schedule\.warmup is 1\.0, not"
    ):
        compared(tiny_module, output, base=base)
    assert {path: times(path) for path in before} == before


def test_runs_made_before_are_compared(
    finished: tuple[dict[str, Any], str], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = output / "entrodrop" / finished[0]["arms"]["entrodrop"]["chosen"]
    folders = [
        f"{arm}={path}/seed={seed}"
        for arm, path in (("ours", chosen), ("plain", output / "plain"))
        for seed in (0, 1)
    ]
    given = compare_existing(folders, output / "given", None, [], Console(width=170))
    assert given["baseline"] == "plain"
    assert given["split"] == "test"
    ours, same = given["arms"]["ours"]["metrics"], finished[0]["arms"]["entrodrop"]["metrics"]
    assert ours["best/loss"] == same["best/loss"]
    assert "ours" in capsys.readouterr().out


def test_one_seed_is_compared_over_documents(
    finished: tuple[dict[str, Any], str], output: Path
) -> None:
    chosen = output / "entrodrop" / finished[0]["arms"]["entrodrop"]["chosen"]
    folders = [f"ours={chosen}/seed=0", f"plain={output}/plain/seed=0"]
    trials, split, _ = group_into_trials([read_existing_run(folder) for folder in folders])
    given = judge(ComparisonInputs("one seed", "plain", (), trials, split), output)
    finding = given["arms"]["ours"]["metrics"]["best/loss"]
    assert finding["method"] == "bootstrap over documents"
    assert finding["samples"] > 2
    assert any("not for other seeds" in note for note in given["notes"])
    assert given["arms"]["ours"]["metrics"]["last/gap"]["interval"] is None


def test_finished_runs_are_not_touched(
    laddered: Laddered,
    staged: tuple[dict[str, Any], str, list[str]],
    finished: tuple[dict[str, Any], str],
) -> None:
    before = laddered.before
    assert {folder: times(laddered.output / folder) for folder in before} == before
    assert "3 of 3 runs are finished already" in laddered.printed
    # Finished runs of the other seeds count for the selected strength alone.
    assert laddered.comparison["arms"] == staged[0]["arms"] != finished[0]["arms"]


def test_ladder_without_a_document_is_an_error_before_training(
    tiny_module: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^ladder: share 0.01: max_train_tokens: expected"):
        compared(tiny_module, tmp_path, ladder=[0.01, 1])
    assert not run_folders(tmp_path)


def test_ladder_trains_on_nested_parts_with_the_same_epochs_and_splits(
    laddered: Laddered,
) -> None:
    output, comparison, printed = laddered.output, laddered.comparison, laddered.printed
    chosen = comparison["arms"]["entrodrop"]["chosen"]
    parts = [
        f"{arm}/ladder=0.5/seed={n}" for arm in ("plain", f"entrodrop/{chosen}") for n in (0, 1)
    ]
    assert run_folders(output) == sorted([*laddered.before, *parts])
    assert "Comparing 2 arms in 9 runs" in printed
    assert printed.count("on 50% of the text, seed 0: started") == 2
    assert printed.count("seed 0: started") == 2
    ladder = comparison["ladder"]
    half, whole = (rung["tokens"] for rung in ladder["rungs"])
    assert 0.4 * whole < half <= round(0.5 * whole)
    part, all_text = (read_run_info(output / path) for path in (parts[0], "plain/seed=0"))
    assert part["train_tokens"] == half
    assert part["fingerprints"]["validation"] == all_text["fingerprints"]["validation"]
    assert part["total_steps"] < all_text["total_steps"]
    last = [read_metrics(output / path)["epoch"].max() for path in (parts[0], "plain/seed=0")]
    assert last[0] == last[1]
    entries = [r for r in comparison["runs"] if (r["arm"], r["share"]) == ("plain", 0.5)]
    assert ladder["rungs"][0]["values"] == [entry["test"]["best/loss"] for entry in entries]
    sentence = ladder["arms"]["entrodrop"]["sentence"]
    assert sentence in " ".join(printed.split())
    assert html.unescape((output / "report.html").read_text()).count(sentence) >= 2
    assert any(
        note.startswith("Multiplier: plain was trained on 50%") for note in comparison["notes"]
    )


def test_killed_comparison_loses_nothing(
    finished: tuple[dict[str, Any], str], tiny_module: Tiny, output: Path, tmp_path: Path
) -> None:
    """SIGKILL takes the comparison, but not the run that it has started last."""
    base = [*content(tiny_module)["base"], WITH_TEST]
    settings = content(tiny_module, base=base, seeds=[0])
    first, *others = plan_runs(parse_settings(settings), tmp_path)
    process = fork(_compare, tiny_module, tmp_path, settings)
    deadline = time.monotonic() + 100
    while not (is_finished(first) and others[0].folder.exists()):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill(process)
    assert not any(is_finished(run) for run in others)
    before = times(first.folder)
    printed = io.StringIO()
    train([first, *others], Workers(start=start_forked), Console(file=printed, width=170))
    assert times(first.folder) == before
    assert "1 of 3 runs are finished already" in printed.getvalue()
    for run in (first, *others):
        assert is_finished(run)
        uninterrupted = output / run.folder.relative_to(tmp_path)
        assert (run.folder / METRICS).read_text() == (uninterrupted / METRICS).read_text()


def _compare(tiny: Tiny, output: Path, settings: dict[str, Any]) -> None:
    compared(tiny, output, **settings)


def test_run_that_fails_is_told(tiny: Tiny, tmp_path: Path) -> None:
    arms = {"plain": [], "wrong": [{"model": {"optimizer": {"init_args": {"lr": 1e30}}}}]}
    settings = {"arms": arms, "seeds": [0]}
    with pytest.raises(ValueError, match="1 of 2 runs failed, the first wrong seed 0"):
        compared(tiny, tmp_path / "failed", **settings)
    log = tmp_path / "failed/wrong/seed=0/compare/fit.log"
    assert "Lower the learning rate" in log.read_text()
    plain, _ = plan_runs(parse_settings(content(tiny, **settings)), tmp_path / "failed")
    assert is_finished(plain)
