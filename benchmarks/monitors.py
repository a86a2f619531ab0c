"""Cost of callbacks and loggers in a training step.

Two real ``Trainer.fit`` runs of our module under EntroDrop alternate by blocks of steps, in random
order (see :mod:`benchmarks.live_fit`). One has no callbacks and loggers. The other has the defaults
of ``fit``: ``metrics.csv``, TensorBoard, NaN guard and all of ``monitors``; the output of the
progress bar is discarded. Differences are computed within rounds.

Checkpoints and validation are excluded, because they run between steps. The cost per step is the
same for any model, so its share depends on the duration of a step: choose a model and a batch like
those you train.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import harness
from benchmarks.live_fit import SILENT, LiveFit, fit, llama, seeded, topics_data
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.callbacks import NaNGuard
from lit_entrodrop.training.loggers import loggers
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.monitors import Monitors
from lit_entrodrop.training.optim import AdamW
from regularizers import EntroDrop

ARMS = ("without monitors", "with monitors")


def monitors(
    rounds: int = 40,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    steps: int = 10,
    hidden_size: int = 256,
    layers: int = 4,
    block_size: int = 128,
    batch_size: int = 4,
    log_every_n_steps: int = 10,
) -> Path:
    """Time blocks of training steps with and without the default callbacks and loggers.

    Args:
        rounds: Number of timed rounds; every arm takes a block of steps in each.
        threads: Number of CPU threads.
        device: Device, cpu or cuda.
        out: Folder for the results.
        steps: Steps per block; a multiple of log_every_n_steps, so that blocks are equal.
        hidden_size: Hidden size of the model.
        layers: Number of layers of the model.
        block_size: Tokens per block of text.
        batch_size: Blocks of text per batch.
        log_every_n_steps: Steps between two logged rows.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    lm = llama(4096, hidden_size, layers)
    with TemporaryDirectory() as folder, discarded_output():
        data = partial(topics_data, Path(folder), block_size=block_size, batch_size=batch_size)
        start = partial(
            live, lm, data, Path(folder), (rounds + 3) * steps, device, log_every_n_steps
        )
        arms = {arm: start(arm) for arm in ARMS}
        cases: dict[str, Callable[[], object]] = {
            arm: partial(each.advance, steps) for arm, each in arms.items()
        }
        seconds = harness.interleaved(cases, rounds, device=device)
        for each in arms.values():
            each.close()
    return harness.save("monitors", settings, describe(seconds, steps), out)


def describe(seconds: dict[str, list[float]], steps: int) -> list[dict[str, Any]]:
    """Return one row per arm: time of a step, and the share that monitors add."""
    rows = []
    for arm in ARMS:
        added = harness.ratio(seconds[arm], seconds["without monitors"])
        rows.append(
            {
                "case": arm,
                **harness.milliseconds([block / steps for block in seconds[arm]]),
                "added_percent": 100 * (added["median"] - 1),
                "added_percent_iqr": 100 * added["iqr"],
                "rounds": added["rounds"],
            }
        )
    return rows


def live(
    lm: LMConfig,
    data: Callable[[], TextDataModule],
    folder: Path,
    total: int,
    device: str,
    log_every_n_steps: int,
    arm: str,
) -> LiveFit:
    """Start the fit of an arm."""
    seeded()
    module = LitCausalLM(lm, [EntroDrop()], partial(AdamW, lr=1e-4), cache_dir=str(folder))
    options = SILENT if arm == "without monitors" else monitored(folder / arm)
    options = {**options, "log_every_n_steps": log_every_n_steps}
    start = partial(fit, module=module, data=data(), steps=total, device=device)
    return LiveFit(partial(start, **options))


def monitored(folder: Path) -> dict[str, Any]:
    """Return trainer options with the default callbacks and loggers."""
    return {
        **SILENT,
        "enable_progress_bar": True,
        "logger": loggers(None, folder),
        "callbacks": [NaNGuard(), *Monitors.standard().callbacks("fit")],
        "default_root_dir": folder,
    }


@contextlib.contextmanager
def discarded_output() -> Iterator[None]:
    """Let Rich draw as on a terminal, and discard its output."""
    before = dict(os.environ)
    os.environ.update(TTY_COMPATIBLE="1", TERM="xterm", COLUMNS="160")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    harness.command_line(monitors)
