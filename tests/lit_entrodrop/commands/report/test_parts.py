"""What pages are made of."""

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lit_entrodrop.commands.report import write_report
from lit_entrodrop.commands.report.comparison_sections.differences import color
from lit_entrodrop.commands.report.records.run_record import positions, read_run
from lit_entrodrop.commands.report.rendering.plotting import (
    CLEAN,
    MUTED,
    STYLE,
    VALIDATION,
    bucket_colors,
)
from lit_entrodrop.commands.report.run_sections.entropies import mean_entropy, thinned
from lit_entrodrop.commands.report.run_sections.losses import side_by_side
from lit_entrodrop.commands.report.run_sections.passages import (
    CHANGE_COLORS,
    ENTROPY_COLORS,
    compared_evaluations,
    passage_view,
)
from lit_entrodrop.runs.evaluations import evaluation_path, read_evaluations
from tests.helpers.run_folder import write_run
from tests.lit_entrodrop.commands.report.conftest import OPTIONAL


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors as WCAG 2 defines it."""
    light = sorted(luminance(color) for color in (first, second))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(color: str) -> float:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_known_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("background", [*ENTROPY_COLORS, *CHANGE_COLORS])
def test_tokens_can_be_read(background: str) -> None:
    assert contrast("#16191d", background) > 7


@pytest.mark.parametrize("color", [*bucket_colors(3), STYLE["text.color"], STYLE["xtick.color"]])
def test_lines_and_labels_stand_out(color: str) -> None:
    assert contrast(color, "#ffffff") > (4.5 if color not in bucket_colors(3) else 3 - 0.2)


def test_positions_follow_evaluations_where_they_are_known() -> None:
    metrics = pd.DataFrame({"epoch": [np.nan, 0, 0, 1]}, index=[0, 5, 10, 15])
    known = pd.Series({0: 0.0, 10: 1.0, 15: 1.5})
    assert positions(metrics, known).tolist() == [0, 0.5, 1, 1.5]


def test_change_is_between_the_best_and_the_last(tmp_path: Path) -> None:
    run = read_run("run", write_run(tmp_path / "run"))
    best, last = compared_evaluations(run)
    assert (best.epoch, last.epoch) == (5, 8)  # type: ignore[union-attr]
    view = passage_view(run)
    assert view is not None
    assert view.change == "after epoch 5 → after epoch 8"
    change = last.passage_nll - best.passage_nll  # type: ignore[union-attr]
    token = view.passages[1][7]
    assert f"({change[1, 7]:+.2f})" in token.tooltip
    shade = int(token.classes.rpartition("c")[2])
    assert (shade > 4) == (change[1, 7] > view.change_scale[5] / 2)
    assert view.passages[0][0].classes == "ex cx"
    assert view.passages[0][0].tooltip == "not part of the loss"


def test_change_since_the_start_where_the_last_is_the_best(tmp_path: Path) -> None:
    run = read_run("run", write_run(tmp_path / "run", epochs=3))
    assert passage_view(run).change == "before training → after epoch 3"  # type: ignore[union-attr]


def test_mean_entropy_is_that_of_the_histogram(full: Path) -> None:
    evaluation = read_evaluations(full)[0]
    middles = np.repeat(evaluation.histogram_edges[:-1] + 0.1, evaluation.histogram)
    assert mean_entropy(evaluation) == pytest.approx(middles.mean())


def test_thinning_keeps_the_ends() -> None:
    assert thinned(list(range(100)), 9)[::8] == [0, 99]


def without_tokens(run: Path, bucket: str) -> Path:
    """Let no validation token of a run be in a bucket."""
    metrics = pd.read_csv(run / "metrics.csv")
    metrics[f"val/loss_{bucket}_entropy"] = np.nan
    metrics.to_csv(run / "metrics.csv", index=False)
    column = 1 + ["low", "mid", "high"].index(bucket)
    for each in read_evaluations(run):
        each.nll[:, column] = each.tokens[:, column] = 0
        each.save(evaluation_path(run, each.step))
    return run


def test_bucket_without_tokens_is_named_and_omitted(tmp_path: Path) -> None:
    other = ("clean_train", "forgetting", "regularizer", "samples", "sets", "task")
    runs = {
        name: without_tokens(write_run(tmp_path / name, epochs=2, without=other), bucket)
        for name, bucket in (("a", "mid"), ("b", "low"))
    }
    text = write_report(tmp_path / "page", runs).read_text()
    assert "Losses of mid entropy are missing, as no validation token has that entropy" in text
    assert "Losses of low entropy are missing" in text
    read = [read_run(name, folder) for name, folder in runs.items()]
    assert list(read[0].groups().values()) == [
        "all tokens",
        "low entropy",
        "high entropy",
    ]
    assert list(read[1].groups().values()) == [
        "all tokens",
        "mid entropy",
        "high entropy",
    ]


def test_buckets_have_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=1, without=("run.json", "evaluations"))
    names = {"low": "bucket_2", "mid": "bucket_10", "high": "bucket_1"}
    text = (run / "metrics.csv").read_text()
    for name, number in names.items():
        text = text.replace(f"_{name}_entropy", f"_{number}_entropy")
    (run / "metrics.csv").write_text(text)
    assert read_run("run", run).buckets == ["bucket_1", "bucket_2", "bucket_10"]


def test_lines_of_unicode_end_no_sample_and_bad_ones_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=1)
    row = {"step": 0, "epoch": 0, "prompt": "p", "text": "one\u2028two\u2029three\u0085four"}
    line = json.dumps(row, ensure_ascii=False)
    (run / "samples.jsonl").write_text(f"{line}\n[1]\n{line[:30]}", encoding="utf-8")
    read = read_run("run", run)
    assert read.samples == [row]
    assert read.notes == ["2 of 3 lines of `samples.jsonl` could not be read."]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "run.json",
            "{}",
            "`run.json` could not be read and is left out: run/run.json: expected",
        ),
        ("run.json", "[]", "`run.json` could not be read"),
        ("run.json", '{"buckets": ', "`run.json` could not be read"),
        ("throughput.csv", "", "`throughput.csv` could not be read"),
        ("throughput.csv", "seconds\n1\n", "`throughput.csv` could not be read"),
        ("config.yaml", "a: [", "`config.yaml` could not be read"),
        ("config.yaml", "", "`config.yaml` could not be read and is left out: expected the"),
    ],
)
def test_damaged_files_are_named_and_omitted(
    short: Path, tmp_path: Path, name: str, content: str, told: str
) -> None:
    run = shutil.copytree(short, tmp_path / "run")
    (run / name).write_text(content)
    read = read_run("run", run)
    [note] = read.notes
    assert note.startswith(told)
    assert str(tmp_path) not in note
    assert (read.diagnosis is None) == (name == "run.json")
    assert str(tmp_path) not in read.undiagnosed


def test_page_names_files_that_could_not_be_read(tmp_path: Path) -> None:
    others = [each for each in OPTIONAL if each != "config"]
    run = write_run(tmp_path / "run", epochs=1, without=others)
    (run / "config.yaml").write_text("a: [")
    [note] = read_run("run", run).notes
    page = html.unescape(write_report(tmp_path / "page", {"run": run}).read_text())
    assert note.partition("` ")[2] in page


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("short") / "run", epochs=2)


def test_line_of_speed_that_was_cut_does_not_count(short: Path, tmp_path: Path) -> None:
    run = shutil.copytree(short, tmp_path / "run")
    with (run / "throughput.csv").open("a") as file:
        file.write("20,0.")
    assert read_run("run", run).speed["seconds_per_step"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected metrics by step in .*metrics.csv, got a file that cannot be read"),
        ("epoch,val/loss\n0,3.0\n", "expected metrics by step in .*metrics.csv"),
        ("step,epoch,val/loss\n", "expected val/loss in .*metrics.csv, found none"),
        ("step,val/loss\n0,3\n5,2\n", "expected the column epoch in .*metrics.csv"),
    ],
)
def test_damaged_metrics_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run("run", tmp_path)


def test_any_name_stands_in_figures(short: Path, tmp_path: Path) -> None:
    runs = [read_run(name, short) for name in ("$x_$", "_hidden", "$$^{")]
    side_by_side(runs, tmp_path, "runs")
    text = html.unescape((tmp_path / "runs.svg").read_text())
    assert all(f">{run.name}<" in text for run in runs)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("better", CLEAN),
        ("worse", VALIDATION),
        # The interval, which is not corrected, leaves zero out.
        ("no difference shown", MUTED),
        ("not tested", MUTED),
    ],
)
def test_contrast_has_the_color_of_its_verdict(verdict: str, expected: str) -> None:
    assert color({"difference": -0.2, "interval": [-0.3, -0.1], "verdict": verdict}) == expected
