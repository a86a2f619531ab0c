"""Steps of a real ``Trainer.fit`` at the shapes of Qwen3: speed, MFU, memory, EntroDrop over plain.

MFU is that of ``throughput.csv``, see :mod:`lit_entrodrop.model.flops`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import harness
from benchmarks.gpu_campaign.cases import Row
from benchmarks.gpu_campaign.sizes import PEAK_FLOPS, random_model
from benchmarks.live_fit import fine_tuning, topics_data
from benchmarks.memory import gpu_peak
from benchmarks.step import ARMS, compare
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token

PLAIN, ENTRODROP = "plain", "EntroDrop, last_epoch"


def measure_pair(
    model: str, length: int, tokens_per_step: int, rounds: int, device: str, precision: str
) -> Iterator[Row]:
    """Time plain and EntroDrop steps by turns; neither compiles nor recomputes.

    Args:
        model: Name of the architecture.
        length: Tokens in a block.
        tokens_per_step: Tokens in a step.
        rounds: Number of timed rounds of a step of each.
        device: Device, ``cuda`` or ``cpu``.
        precision: Precision of the trainer.
    """
    harness.prepare(torch.get_num_threads(), device)
    lm, batch_size = random_model(model), max(1, tokens_per_step // length)
    arms = {arm: ARMS[arm] for arm in (PLAIN, ENTRODROP)}
    rows = compare(lm, arms, rounds, device, length, batch_size, precision=precision)
    for row in rows:
        speed = batch_size * length / (row["ms"] / 1e3)
        yield {
            **_shape(model, length, batch_size),
            "arm": row.pop("case"),
            **row,
            **speed_of(speed, lm, length),
        }


def measure_variant(
    model: str,
    length: int,
    tokens_per_step: int,
    compiled: bool,
    recomputed: bool,
    rounds: int,
    device: str,
    precision: str,
    steps: int = 3,
) -> Iterator[Row]:
    """Measure EntroDrop steps with or without compiled and recomputed blocks.

    Args:
        model: Name of the architecture.
        length: Tokens in a block.
        tokens_per_step: Tokens in a step.
        compiled: Whether transformer blocks are compiled.
        recomputed: Whether activations are recomputed.
        rounds: Number of timed rounds.
        device: Device, ``cuda`` or ``cpu``.
        precision: Precision of the trainer.
        steps: Steps in a round.
    """
    harness.prepare(torch.get_num_threads(), device)
    lm = random_model(model, compile=compiled, activation_checkpointing=recomputed)
    batch_size = max(1, tokens_per_step // length)
    with TemporaryDirectory() as folder, gpu_peak(device) as peak:
        data = topics_data(Path(folder), block_size=length, batch_size=batch_size)
        options = {"steps": (rounds + 2) * steps, "device": device, "precision": precision}
        live = fine_tuning(lm, ARMS[ENTRODROP], data, **options)
        case = partial(live.advance, steps)
        seconds = harness.interleaved({"fit": case}, rounds, device=device)["fit"]
        # The last batch of an epoch may be smaller.
        blocks = data.num_blocks("train") / data.batches_per_epoch()
        live.close()
    per_step = [each / steps for each in seconds]
    tokens_per_s = length * blocks / harness.summary(per_step)["median"]
    yield {
        **_shape(model, length, batch_size),
        "arm": ENTRODROP,
        "compiled": compiled,
        "recomputed": recomputed,
        **harness.milliseconds(per_step),
        "rounds": rounds,
        **speed_of(tokens_per_s, lm, length),
        "peak_gib": peak.gib,
    }


def speed_of(tokens_per_s: float, lm: LMConfig, length: int) -> Row:
    """Return tokens per second, and the share of an H200's peak that the model FLOPs take."""
    flops = training_flops_per_token(build_on_meta(lm), length)
    return {"tokens_per_s": tokens_per_s, "mfu": tokens_per_s * flops / PEAK_FLOPS}


def _shape(model: str, length: int, batch_size: int) -> Row:
    return {"model": model, "length": length, "batch_size": batch_size}
