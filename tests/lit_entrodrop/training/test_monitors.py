from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from lit_entrodrop.training.callbacks import (
    EvaluationFiles,
    OverfittingMonitor,
    RunProgressBar,
    Throughput,
)
from lit_entrodrop.training.monitors import Monitors, shows_progress
from tests.helpers.tiny import Tiny


def kinds(monitors: Monitors, *arguments: Any) -> list[type]:
    return [
        next(
            kind
            for kind in (EvaluationFiles, OverfittingMonitor, Throughput, RunProgressBar)
            if isinstance(each, kind)
        )
        for each in monitors.callbacks(*arguments)
    ]


def test_cheap_ones_are_on_by_default() -> None:
    cheap = [EvaluationFiles, OverfittingMonitor, Throughput, RunProgressBar]
    assert kinds(Monitors.standard(), "fit") == cheap
    assert kinds(Monitors.standard(), "fit", False) == cheap[:-1]
    assert (
        kinds(Monitors.standard(), "validate")
        == kinds(Monitors.standard(), "test")
        == [EvaluationFiles, RunProgressBar]
    )
    for subcommand in ("predict", "score"):
        assert kinds(Monitors.standard(), subcommand) == [RunProgressBar]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"enable_progress_bar": None, "callbacks": None}, True),
        ({"enable_progress_bar": True, "callbacks": []}, True),
        ({"enable_progress_bar": False, "callbacks": None}, False),
        ({"enable_progress_bar": None, "callbacks": TQDMProgressBar()}, False),
        ({"enable_progress_bar": None, "callbacks": [RichProgressBar()]}, False),
    ],
)
def test_a_bar_of_the_users_own_takes_its_place(settings: dict[str, Any], shown: bool) -> None:
    assert shows_progress(SimpleNamespace(**settings)) is shown


def test_null_switches_off(tiny: Tiny) -> None:
    names = ("evaluations", "overfitting", "throughput", "progress_bar")
    off = [word for name in names for word in (f"--monitors.{name}", "null")]
    run = tiny.run("fit", *off, "--trainer.max_epochs", 1, "--trainer.logger", "true")
    files = {path.name for path in run.iterdir()}
    assert files == {"checkpoints", "config.yaml", "metrics.csv", "tensorboard"}
