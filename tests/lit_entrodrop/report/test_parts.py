"""What pages are made of."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lit_entrodrop.evaluations import read_evaluations
from lit_entrodrop.report.contrasts import color
from lit_entrodrop.report.drawing import CLEAN, MUTED, STYLE, VALIDATION, bucket_colors
from lit_entrodrop.report.entropies import mean_entropy, thinned
from lit_entrodrop.report.passages import CHANGE_COLORS, ENTROPY_COLORS, compared, text_view
from lit_entrodrop.report.run import positions, read_run
from tests.helpers.run_folder import write_run


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""
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
    best, last = compared(run)
    assert (best.epoch, last.epoch) == (5, 8)  # type: ignore[union-attr]
    view = text_view(run)
    assert view is not None
    assert view.change == "after epoch 5 → after epoch 8"
    change = last.passage_nll - best.passage_nll  # type: ignore[union-attr]
    token = view.passages[1][7]
    assert f"({change[1, 7]:+.2f})" in token.told
    shade = int(token.classes.rpartition("c")[2])
    assert (shade > 4) == (change[1, 7] > view.change_scale[5] / 2)
    assert view.passages[0][0].classes == "ex cx"
    assert view.passages[0][0].told == "does not count in the loss"


def test_change_since_the_start_where_the_last_is_the_best(tmp_path: Path) -> None:
    run = read_run("run", write_run(tmp_path / "run", epochs=3))
    assert text_view(run).change == "before training → after epoch 3"  # type: ignore[union-attr]


def test_mean_entropy_is_that_of_the_histogram(full: Path) -> None:
    evaluation = read_evaluations(full)[0]
    middles = np.repeat(evaluation.histogram_edges[:-1] + 0.1, evaluation.histogram)
    assert mean_entropy(evaluation) == pytest.approx(middles.mean())


def test_thinning_keeps_the_ends() -> None:
    assert thinned(list(range(100)), 9)[::8] == [0, 99]


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
def test_contrast_has_the_colour_of_its_verdict(verdict: str, expected: str) -> None:
    assert color({"difference": -0.2, "interval": [-0.3, -0.1], "verdict": verdict}) == expected
