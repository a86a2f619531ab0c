"""Training speed and memory on a GPU at the shapes of Qwen3. NO GPU HAS RUN THIS SCRIPT YET.

The tests run it on a CPU with a tiny model. Weights are random, so no hub is needed. Each case is a
real ``Trainer.fit`` of our module with EntroDrop (see :mod:`benchmarks.live_fit`), timed in blocks
of steps after untimed steps that compile and fill caches. Cases run one after another, because one
may fill the GPU; read them as absolute numbers, not as precise ratios. For the ratio of EntroDrop
to a plain step, at each shape, a plain and an EntroDrop fit share the GPU and alternate step by
step, as in :mod:`benchmarks.step`.

MFU is that of ``throughput.csv``, see :mod:`lit_entrodrop.model.flops`.
"""

import gc
import math
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import harness, head
from benchmarks.live_fit import TOKENIZER, fine_tuning, topics_data
from benchmarks.step import ARMS, compare
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token
from regularizers import EntroDrop

TERA = 1e12
GIB = 2**30
PAIR = {arm: ARMS[arm] for arm in ("plain", "EntroDrop, last_epoch")}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
TINY = {"vocab_size": 4096, "num_hidden_layers": 1, "num_attention_heads": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b": {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
    "llama3.1-8b": LLAMA_8B,
    "tiny": {
        **QWEN3,
        **TINY,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
    },
}


def gpu(
    rounds: int = 5,
    threads: int = 8,
    device: str = "cuda",
    out: str = harness.RESULTS,
    models: list[str] = ["qwen3-0.6b", "qwen3-1.7b"],  # noqa: B006
    lengths: list[int] = [2048, 4096, 8192],  # noqa: B006
    compiled: list[bool] = [False, True],  # noqa: B006
    tokens_per_step: int = 16384,
    steps: int = 5,
    checkpointing: bool = True,
    precision: str = "bf16-mixed",
    peak_tflops: float = 989.0,
    head_vocab_size: int = 151936,
    head_tokens: int = 8192,
    head_dimensions: int = 4096,
    head_dtype: str = "bfloat16",
) -> Path:
    """Measure tokens/s, MFU and peak memory of training, EntroDrop over plain, and the head alone.

    EntroDrop over plain goes to ``gpu_step.json``, the head (bare matrix products, naive and ours)
    to ``gpu_head.json``.

    Args:
        rounds: Number of timed blocks of steps per case, and of timed rounds for the head.
        threads: Number of CPU threads.
        device: Device, cuda; cpu only checks that the script works.
        out: Folder for the results.
        models: Names of models: qwen3-0.6b, qwen3-1.7b, tiny.
        lengths: Tokens per block.
        compiled: Whether transformer blocks are compiled.
        tokens_per_step: Tokens per step, which determine the number of blocks in a batch.
        steps: Steps per timed block.
        checkpointing: Whether activations are recomputed.
        precision: Precision of the trainer.
        peak_tflops: Peak of the GPU for the MFU, dense bf16, TFLOP/s; 989 for H100 and H200.
        head_vocab_size: Vocabulary size V of the head.
        head_tokens: Number of tokens N of the head.
        head_dimensions: Hidden size D of the head.
        head_dtype: Data type of hidden states and weight.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for model, length, compile_blocks in product(models, lengths, compiled):
        lm = LMConfig(
            pretrained=None,
            architecture=ARCHITECTURES[model],
            tokenizer=TOKENIZER,
            activation_checkpointing=checkpointing,
            compile=compile_blocks,
        )
        batch_size = max(1, tokens_per_step // length)
        case = {"model": model, "length": length, "compiled": compile_blocks}
        case["batch_size"] = batch_size
        measured = train(lm, length, batch_size, rounds, steps, device, precision)
        flops = training_flops_per_token(build_on_meta(lm), length)
        mfu = measured["tokens_per_s"] * flops / (peak_tflops * TERA)
        rows.append({**case, **measured, "mfu": mfu})
        release_gpu(device)
        pair = compare(lm, PAIR, rounds * steps, device, length, batch_size, precision=precision)
        pairs += [{**case, **row} for row in pair]
    release_gpu(device)
    harness.save("gpu_step", settings, pairs, out)
    path = harness.save("gpu", settings, rows, out)
    head.benchmark(
        [head_vocab_size],
        head_tokens,
        head_dimensions,
        head_dtype,
        rounds,
        threads,
        device,
        out,
        name="gpu_head",
    )
    return path


def train(
    lm: LMConfig,
    length: int,
    batch_size: int,
    rounds: int,
    steps: int,
    device: str,
    precision: str,
) -> dict[str, float]:
    """Train for some blocks of steps and return speed and peak memory."""
    release_gpu(device)
    with TemporaryDirectory() as folder:
        data = topics_data(Path(folder), block_size=length, batch_size=batch_size)
        options = {"steps": (rounds + 2) * steps, "device": device, "precision": precision}
        live = fine_tuning(lm, [EntroDrop()], data, **options)
        case = partial(live.advance, steps)
        seconds = harness.interleaved({"fit": case}, rounds, device=device)["fit"]
        # The last batch of an epoch may be smaller.
        blocks_per_step = data.num_blocks("train") / data.batches_per_epoch()
        live.close()
    per_step = [block / steps for block in seconds]
    time = harness.summary(per_step)
    return {
        **harness.milliseconds(per_step),
        "tokens_per_s": length * blocks_per_step / time["median"],
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if on_gpu(device) else math.nan,
        "rounds": time["rounds"],
    }


def release_gpu(device: str) -> None:
    """Free GPU memory before the next measurement."""
    # A closed fit leaves its model in reference cycles.
    gc.collect()
    if on_gpu(device):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def on_gpu(device: str) -> bool:
    """Return whether a device is a GPU."""
    return torch.device(device).type == "cuda"


if __name__ == "__main__":
    harness.command_line(gpu)
