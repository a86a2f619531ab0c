from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from lit_entrodrop.commands.report.comparison_sections.frontier import (
    Point,
    frontier,
    points_of,
    unbeaten,
)
from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.evaluation.statistics import Estimate


def arm(**values: list[float]) -> dict[str, Any]:
    return {"metrics": {name.replace("_", "/", 1): {"values": of} for name, of in values.items()}}


ARMS = {
    "none": arm(best_loss=[3.0, 3.1, 3.05], best_forgetting=[0.5, 0.6, 0.7]),
    "half": arm(best_loss=[3.2, 3.3, 3.25], best_forgetting=[0.1, 0.1, 0.2]),
    "unmeasured": arm(best_loss=[2.0, 2.1, 2.2]),
}


def test_points_are_means_with_t_intervals() -> None:
    points = points_of(ARMS, "best")
    assert list(points) == ["none", "half"]
    values = np.array([0.5, 0.6, 0.7])
    found = points["none"].forgetting
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert found.difference == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_seed_has_no_interval() -> None:
    [point] = points_of({"none": arm(last_loss=[3.0], last_forgetting=[0.5])}, "last").values()
    assert point == (Estimate(0.5), Estimate(3.0))


def test_line_leaves_out_what_is_worse_in_both() -> None:
    values = [(0.2, 3.0), (0.3, 3.1), (0.1, 3.5), (0.4, 2.9), (0.4, 3.0), (0.1, 3.6)]
    points = [Point(Estimate(forgetting), Estimate(loss)) for forgetting, loss in values]
    kept = [(point.forgetting.difference, point.loss.difference) for point in unbeaten(points)]
    better = [
        (x, y)
        for x, y in values
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in values)
    ]
    assert kept == sorted(better)


def test_names_of_close_points_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [(0.2, 3.0), (0.2, 3.0), (0.21, 3.001), (0.1, 3.4), (0.101, 3.39), (0.9, 3.0)]
    arms = {
        f"share 0.{number}": arm(best_loss=[loss], best_forgetting=[forgetting])
        for number, (forgetting, loss) in enumerate(values)
    }
    figures: list[Figure] = []
    drawn = plotting.Canvas.panels

    def panels(canvas: plotting.Canvas, *args: Any, **settings: Any) -> Any:
        figure, axes = drawn(canvas, *args, **settings)
        figures.append(figure)
        return figure, axes

    monkeypatch.setattr(plotting.Canvas, "panels", panels)
    assert frontier({"arms": arms, "split": "test"}, None, "close") is not None
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        assert len(boxes) == len(values)
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_figure_shows_each_arm(tmp_path: Path) -> None:
    figure = frontier({"arms": ARMS, "split": "test"}, tmp_path, "frontier")
    assert figure is not None
    assert "none at the best epoch: forgetting +0.600, loss 3.050" in figure.wide
    assert "unmeasured" not in figure.wide
    assert (tmp_path / "frontier.png").stat().st_size > 0
    assert frontier({"arms": {"none": ARMS["none"]}, "split": "test"}, tmp_path, "one") is None
