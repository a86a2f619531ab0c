"""Cost of EntroDrop, with each entropy source, and of random token dropout in a training step.

Each arm is a real ``Trainer.fit`` of the same model from the same weights on the same batches. All
arms run in one process and alternate step by step in random order (see :mod:`benchmarks.live_fit`).
Each step is divided by the plain step of the same round. Each arm trains for an epoch before the
timing, because ``last_epoch`` needs the entropies of a whole epoch. The strength is constant, at
the peak of EntroDrop's default curriculum: two fifths of the low-entropy half.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import harness
from benchmarks.live_fit import TINY_BASE, fine_tuning, llama, topics_data
from lit_entrodrop.model.config import LMConfig
from regularizers import EntroDrop, RandomTokenDropout, Regularizer

STRENGTH = 0.4
ARMS: dict[str, list[Regularizer]] = {
    "plain": [],
    "EntroDrop, last_epoch": [EntroDrop(curriculum=STRENGTH)],
    "EntroDrop, reference": [EntroDrop(curriculum=STRENGTH, entropy_source="reference")],
    "EntroDrop, online": [EntroDrop(curriculum=STRENGTH, entropy_source="online")],
    "RandomTokenDropout": [
        RandomTokenDropout(curriculum=STRENGTH, quantile=0.5, replacement="random_token")
    ],
}
MODELS: dict[str, LMConfig] = {
    "4k": TINY_BASE,
    "49k": llama(vocab_size=49152, hidden_size=192, layers=4),
}
BATCHES_PER_EPOCH = 8


def step(
    rounds: int = 20,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    block_size: int = 256,
    batch_size: int = 4,
    models: list[str] = list(MODELS),  # noqa: B006
) -> Path:
    """Time training steps with and without regularizers, alternating in one process.

    Args:
        rounds: Number of timed rounds; every arm takes one step in each.
        threads: Number of CPU threads.
        device: Device, cpu or cuda.
        out: Folder for the results.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
        models: Models to train, named by vocabulary size.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    rows = []
    for model in models:
        compared = compare(MODELS[model], ARMS, rounds, device, block_size, batch_size)
        rows += [{"model": model, **row} for row in compared]
    return harness.save("step", settings, rows, out)


def compare(
    lm: LMConfig,
    arms: Mapping[str, Sequence[Regularizer]],
    rounds: int,
    device: str,
    block_size: int,
    batch_size: int,
    holdout: float | str = 0.0,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train the arms alternately, one step each, and return a row for each.

    Args:
        lm: The model.
        arms: Regularizers by name of the arm; one is ``plain``.
        rounds: Number of timed rounds.
        device: Device, cpu or cuda.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
        holdout: Holdout share or corpus, as in the data module.
        options: Options of the trainer.
    """
    epoch, steps = BATCHES_PER_EPOCH, rounds + BATCHES_PER_EPOCH + 2
    shape = {"block_size": block_size, "batch_size": batch_size, "holdout": holdout}
    with TemporaryDirectory() as folder:
        tokens = epoch * batch_size * block_size
        data = partial(topics_data, Path(folder), max_train_tokens=tokens, **shape)
        live = {
            arm: fine_tuning(lm, regularizers, data(), steps=steps, device=device, **options)
            for arm, regularizers in arms.items()
        }
        cases = {arm: each.advance for arm, each in live.items()}
        seconds = harness.interleaved(cases, rounds, warmup=epoch + 1, device=device)
        for each in live.values():
            each.close()
    return [describe(arm, seconds) for arm in seconds]


def describe(arm: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the row of one arm."""
    ratio = harness.ratio(seconds[arm], seconds["plain"])
    return {
        "case": arm,
        **harness.milliseconds(seconds[arm]),
        "ratio": ratio["median"],
        "ratio_iqr": ratio["iqr"],
        "rounds": ratio["rounds"],
    }


if __name__ == "__main__":
    harness.command_line(step)
