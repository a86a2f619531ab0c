"""What watching a run adds to its training steps.

Two real ``Trainer.fit`` runs of our module under EntroDrop take turns by blocks of steps, in a
random order (see :mod:`benchmarks.live_fit`): one without callbacks and loggers, one with all that
``fit`` has by default: ``metrics.csv``, TensorBoard, NaN guard, and all of ``monitors``, the
progress bar drawn as on a terminal, but to nowhere. Differences are taken within a round.

Checkpoints and validation, with what monitors do there, are no part of it: they lie between steps,
and take the longer the more often they are asked for. What watching adds to a step is the same for
any model, so that its share depends on how long a step takes: choose a model and a batch as those
that are trained.
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

ARMS = ("unwatched", "watched")


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
    """Time blocks of training steps with and without all that watches a run by default.

    Args:
        rounds: timed rounds; in each, every arm takes a block of steps.
        threads: CPU threads.
        device: cpu or cuda.
        out: folder of the results.
        steps: steps in a block; a multiple of log_every_n_steps, as else blocks differ.
        hidden_size: of the model.
        layers: of the model.
        block_size: tokens in a block of text.
        batch_size: blocks of text in a batch.
        log_every_n_steps: as the trainer's.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    lm = llama(4096, hidden_size, layers)
    with TemporaryDirectory() as folder, drawn_to_nowhere():
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
    """Return one row for each arm: time of a step, and the share that watching adds to it."""
    rows = []
    for arm in ARMS:
        added = harness.ratio(seconds[arm], seconds["unwatched"])
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
    options = SILENT if arm == "unwatched" else watched(folder / arm)
    options = {**options, "log_every_n_steps": log_every_n_steps}
    start = partial(fit, module=module, data=data(), steps=total, device=device)
    return LiveFit(partial(start, **options))


def watched(folder: Path) -> dict[str, Any]:
    """Return the options of a trainer with all that watches a run by default."""
    return {
        **SILENT,
        "enable_progress_bar": True,
        "logger": loggers(None, folder),
        "callbacks": [NaNGuard(), *Monitors().callbacks("fit")],
        "default_root_dir": folder,
    }


@contextlib.contextmanager
def drawn_to_nowhere() -> Iterator[None]:
    """Let Rich draw as on a terminal, but keep it from the screen."""
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
