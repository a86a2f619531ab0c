import logging
import os
import pty
import re
import sys
from typing import Any

import lightning as L
import pytest
import torch

from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.training.callbacks import RunProgressBar, Throughput
from lit_entrodrop.training.callbacks import progress_bar as module_of_bar
from regularizers import EntroDrop
from tests.helpers.clock import Clock
from tests.helpers.tiny import Tiny


def fit(tiny: Tiny, *callbacks: L.Callback, **settings: Any) -> Any:
    defaults = {"num_sanity_val_steps": -1, "log_every_n_steps": 2, "max_epochs": 2}
    trainer = tiny.trainer(
        callbacks=list(callbacks), enable_progress_bar=True, **{**defaults, **settings}
    )
    trainer.fit(tiny.module(EntroDrop(curriculum=0.25)), datamodule=tiny.data())
    return trainer


class Shown(L.Callback):
    """Collects what the bar shows after each step, and what it would cost."""

    def __init__(self, bar: RunProgressBar) -> None:
        self.bar = bar
        self.after: dict[int, dict[str, Any]] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.after[trainer.global_step] = self.bar.get_metrics(trainer, module)


def test_bar_shows_losses_strength_speed_and_time_left(tiny: Tiny) -> None:
    bar = RunProgressBar()
    shown = Shown(bar)
    metrics = MetricsFile(tiny.folder)
    trainer = fit(tiny, Throughput(), bar, shown, logger=metrics)
    names = set(shown.after[trainer.global_step - 1])
    assert {"train/loss", "entro_drop/strength", "val/loss", "tokens/s", "left"} == names
    # Nothing is known before the first step that logs.
    assert shown.after[0]["train/loss"] == "from step 2"
    late = shown.after[12]
    assert late["entro_drop/strength"] == "0.250"
    [epoch] = [row for row in metrics.rows if row["step"] == 10 and "val/loss" in row]
    low, mid, high = (epoch[f"val/loss_{of}_entropy"] for of in ("low", "mid", "high"))
    buckets = f"low {low:.3f}, mid {mid:.3f}, high {high:.3f}"
    assert late["val/loss"] == f"{epoch['val/loss']:.3f} ({buckets})"
    assert re.fullmatch(r"\d:\d\d:\d\d", late["left"])
    # The training metrics of the last step that logged.
    assert shown.after[12]["train/loss"] != shown.after[14]["train/loss"]
    assert shown.after[13]["train/loss"] == shown.after[12]["train/loss"]


def test_time_left_is_that_of_the_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module_of_bar, "monotonic", clock.monotonic)

    class Hour(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            clock.now += 3600

    bar = RunProgressBar()
    shown = Shown(bar)
    trainer = fit(tiny, Hour(), bar, shown)
    total = trainer.global_step
    assert "left" not in shown.after[0]
    assert shown.after[total - 3]["left"] == "3:00:00"


def test_lines_where_there_is_no_terminal(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lightning.pytorch"):
        trainer = fit(tiny, RunProgressBar(seconds_per_line=1e-9))
    assert capsys.readouterr().out == ""
    total = trainer.global_step
    lines = [line for line in caplog.messages if line.startswith("epoch 2/2, step ")]
    assert f"epoch 2/2, step {total}/{total}: train/loss " in lines[-1]
    assert "left 0:00:00" in lines[-1]


def test_long_evaluation_prints_lines_where_there_is_no_terminal(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tiny, RunProgressBar(seconds_per_line=1e-9))
    lines = capsys.readouterr().err.splitlines()
    before = [line for line in lines if line.startswith("Evaluating the initial model: ")]
    total = len(before)
    assert before[-1] == (f"Evaluating the initial model: {total}/{total} batches, 0:00:00 left")
    assert f"Validation: {total}/{total} batches, 0:00:00 left" in lines


def test_quiet_where_there_is_no_terminal(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lightning.pytorch"):
        fit(tiny, RunProgressBar())
    assert capsys.readouterr().out == ""
    assert not [line for line in caplog.messages if line.startswith("epoch 1/2, step")]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_bar_is_drawn_on_a_terminal(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        handler = logging.StreamHandler(screen)
        logging.getLogger("lightning.pytorch").addHandler(handler)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        drawing = RunProgressBar(refreshes_per_second=1e9)
        collected = Collect(controller)
        fit(tiny, drawing, collected)
        collected.read()
        logging.getLogger("lightning.pytorch").removeHandler(handler)
        assert handler.stream is screen
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", collected.text)
    assert re.search(r"Epoch 2/2 .* 10/10 train/loss: \d\.\d{3} .*val/loss: .* left: 0:00:00", text)
    assert "Epoch 0" not in text
    assert "Evaluating the initial model" in text
    assert "Sanity" not in text
    # A message stands on a line of its own, above the bar.
    assert re.search(r"[\r\n]epoch 1, step 10: val/loss [^━]*[\r\n]", text)


class Collect(L.Callback):
    """Reads a terminal before it is full."""

    def __init__(self, controller: int) -> None:
        os.set_blocking(controller, False)
        self.controller = controller
        self.text = ""

    def on_train_batch_end(self, *_: Any) -> None:
        self.read()

    def read(self) -> None:
        try:
            while chunk := os.read(self.controller, 65536):
                self.text += chunk.decode(errors="replace")
        except OSError:
            return


def test_nothing_is_read_from_a_device(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = RunProgressBar(refreshes_per_second=1e9)
    trainer = fit(tiny, bar)

    def fail(*_: Any) -> None:
        raise AssertionError("a value was read")

    for name in ("item", "tolist", "__float__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, fail)
    assert bar.get_metrics(trainer, trainer.lightning_module)["train/loss"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="refreshes_per_second > 0"):
        RunProgressBar(refreshes_per_second=0)
