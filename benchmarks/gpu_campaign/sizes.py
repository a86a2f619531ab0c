"""Sizes of all measurements: on the GPU, and in the rehearsal on a CPU."""

from dataclasses import dataclass
from typing import Any

from benchmarks.hub_models import HUB_MODELS
from benchmarks.live_fit import TOKENIZER
from lit_entrodrop.model.config import LMConfig

# Dense bf16 operations per second of an H200, from its data sheet.
PEAK_FLOPS = 989e12
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": HUB_MODELS["qwen3_0.6b"],
    "qwen3-1.7b": HUB_MODELS["qwen3_1.7b"],
    "llama3.1-8b": HUB_MODELS["llama3.1_8b"],
    "tiny": {
        **HUB_MODELS["qwen3_0.6b"],
        "vocab_size": 4096,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
    },
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of all measurements.

    Args:
        device: Device, ``cuda`` or ``cpu``.
        threads: Number of CPU threads of each process.
        precision: Precision of the trainer.
        tests: Files of tests, which of them, and number of processes.
        head: Vocabulary sizes, tokens, dimensions, dtype and exact samples of the loss head.
        models: Architectures of the training steps and of the comparison with other trainers.
        lengths: Tokens in a block.
        tokens_per_step: Tokens in a step.
        compiled: Whether compiled steps are measured too.
        rounds: Number of timed rounds.
        peers: Architecture, and blocks, tokens in a block, steps in a turn and turns of the
            comparison.
        large: Architecture, tokens in a block, blocks and steps of the large model.
        evidence: Settings that the runs of the evidence change.
        seeds: Number of seeds of the evidence.
        parallel: Number of evidence runs at the same time.
    """

    device: str
    threads: int
    precision: str
    tests: dict[str, Any]
    head: dict[str, Any]
    models: tuple[str, ...]
    lengths: tuple[int, ...]
    tokens_per_step: int
    compiled: bool
    rounds: int
    peers: dict[str, Any]
    large: dict[str, Any]
    evidence: dict[str, Any]
    seeds: int
    parallel: int


GPU = Sizes(
    device="cuda",
    threads=4,
    precision="bf16-mixed",
    tests={
        "files": [
            "tests/regularizers/test_contract.py",
            "tests/lit_entrodrop/model/head",
            "tests/lit_entrodrop/runtime/test_async_copy.py",
        ],
        "selected": "device_is_kept or head or async_copy",
        "workers": 8,
    },
    head={
        "vocab_sizes": (151936, 32000),
        "tokens": 8192,
        "dimensions": 4096,
        "dtype": "bfloat16",
        "sample": 256,
    },
    models=("qwen3-0.6b", "qwen3-1.7b"),
    lengths=(2048, 8192),
    tokens_per_step=16384,
    compiled=True,
    rounds=8,
    peers={"model": "qwen3-0.6b", "length": 2048, "batch_size": 4, "turn": 5, "turns": 4},
    large={"model": "llama3.1-8b", "length": 2048, "batch_size": 4, "steps": 20, "warmup": 5},
    evidence={},
    seeds=3,
    parallel=3,
)
REHEARSAL = Sizes(
    device="cpu",
    threads=1,
    precision="32-true",
    # Triton's interpreter takes minutes for the tests of the head.
    tests={
        "files": ["tests/lit_entrodrop/runtime/test_async_copy.py"],
        "selected": "async_copy",
        "workers": 0,
    },
    head={
        "vocab_sizes": (96, 64),
        "tokens": 64,
        "dimensions": 16,
        "dtype": "float32",
        "sample": 16,
    },
    models=("tiny",),
    lengths=(32,),
    tokens_per_step=64,
    compiled=False,
    rounds=2,
    peers={"model": "tiny", "length": 16, "batch_size": 2, "turn": 2, "turns": 2},
    large={"model": "tiny", "length": 32, "batch_size": 2, "steps": 3, "warmup": 1},
    evidence={
        "trainer": {"max_epochs": 2},
        "data": {"block_size": 64, "batch_size": 4, "max_train_tokens": 1000},
    },
    seeds=1,
    parallel=1,
)


def random_model(name: str, **settings: Any) -> LMConfig:
    """Describe a model with random weights and the tokenizer of the tiny base LM."""
    return LMConfig(None, ARCHITECTURES[name], TOKENIZER, **settings)
