"""Agreement of predicted and measured training memory.

The prediction takes activations from
:func:`lit_entrodrop.commands.plan.estimates.activations.dry_run`, and computes parameters,
gradients and both moments of AdamW in fp32; for FSDP2, it computes a rank's share of them and the
weights it gathers. The measurement is a real ``Trainer.fit`` of some steps in a fresh process: the
peak of its resident set minus the size after a training of a tiny model, so that libraries do not
count. The process' malloc maps each large tensor separately and releases it at once; by default, it
would keep memory that the training does not need.
"""

import ctypes
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks import harness
from benchmarks.live_fit import CLIP, SILENT, TOKENIZER, llama, seeded, topics_data
from benchmarks.memory import extra_memory
from lit_entrodrop.commands.plan.estimates.activations import dry_run
from lit_entrodrop.model.building import build_hf_config, transformer_blocks
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW
from lit_entrodrop.training.strategies import FSDP2Strategy

MIB = 2**20
STEPS = 3
# Each block of at least 64 KiB is mapped separately, and unmapped when it is freed.
EXACT_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_MMAP_MAX_": "1000000",
}


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        name: Name of the model.
        lm: The model.
        batch_size: Rows per batch.
        block_size: Tokens per row.
        precision: Precision of the trainer.
        ranks: Number of ranks over which FSDP2 shards the model; 1 for no sharding.
    """

    name: str
    lm: LMConfig
    batch_size: int
    block_size: int
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    ranks: int = 1

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return count(weightless(self.lm))


def model(model_type: str, **architecture: Any) -> LMConfig:
    """Describe a model with random weights and the tokenizer of the tiny base LM."""
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return LMConfig(
        pretrained=None,
        tokenizer=TOKENIZER,
        architecture={"model_type": model_type, **ids, **architecture},
    )


def checkpointed(lm: LMConfig) -> LMConfig:
    """Return a model that recomputes its blocks in the backward pass."""
    return replace(lm, activation_checkpointing=True)


GPT2 = model("gpt2", vocab_size=50257, n_embd=512, n_layer=8, n_head=8, n_positions=1024)
LLAMA = llama(vocab_size=32000, hidden_size=512, layers=10)
QWEN3 = model(
    "qwen3",
    vocab_size=151936,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
    tie_word_embeddings=True,
)
CASES = [
    Case("GPT-2", GPT2, 4, 256),
    Case("GPT-2", checkpointed(GPT2), 4, 256),
    Case("Llama", LLAMA, 4, 256),
    Case("Llama", LLAMA, 2, 512),
    Case("Llama", LLAMA, 4, 256, "bf16-mixed"),
    Case("Llama", checkpointed(LLAMA), 2, 512),
    Case("Llama, 2 ranks", LLAMA, 2, 256, ranks=2),
    Case("Qwen3", QWEN3, 4, 256),
    Case("Qwen3", checkpointed(QWEN3), 4, 256),
]


def plan(threads: int = 1, out: str = harness.RESULTS, cases: list[int] | None = None) -> Path:
    """Compare predicted and measured peak memory of training on a CPU.

    Args:
        threads: Number of CPU threads.
        out: Folder for the results.
        cases: Indices of the cases; null for all.
    """
    settings = {**locals()}
    harness.prepare(threads)
    os.environ |= EXACT_MALLOC
    rows = [row(CASES[place]) for place in range(len(CASES)) if cases is None or place in cases]
    return harness.save("plan", {**settings, "steps": STEPS}, rows, out)


def row(case: Case) -> dict[str, Any]:
    """Return the predicted and the measured peak of a training, in MiB."""
    parts, measured = predict(case), measure(case)
    return {
        "model": case.name,
        "parameters": case.parameters,
        "checkpointing": case.lm.activation_checkpointing,
        "batch_size": case.batch_size,
        "block_size": case.block_size,
        "precision": case.precision,
        "ranks": case.ranks,
        **{name: size / MIB for name, size in parts.items()},
        "predicted": sum(parts.values()) / MIB,
        "measured": measured / MIB,
        "error": sum(parts.values()) / measured - 1,
    }


def predict(case: Case) -> dict[str, int]:
    """Return the parts of the peak of a rank's memory, in bytes, without training."""
    step = dry_run(case.lm, case.batch_size, case.block_size, case.precision, on_gpu=False)
    weights = 4 * case.parameters
    shard = weights // case.ranks
    return {
        # Gradients of the previous step exist until the end of the forward pass.
        "states": 3 * shard,
        "step": step.step_bytes - weights + shard,
        "gathered": gathered_bytes(case.lm) if case.ranks > 1 else 0,
    }


def gathered_bytes(lm: LMConfig) -> int:
    """Return bytes of gathered weights under FSDP2: those outside of blocks, and two blocks."""
    hf_model = weightless(lm)
    block, *others = (count(each) for each in transformer_blocks(hf_model))
    return 4 * (count(hf_model) - block - sum(others) + 2 * block)


def measure(case: Case) -> int:
    """Return the peak memory of a training, in bytes, of the rank with the highest peak."""
    port = find_free_network_port()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(case.ranks) as ranks:
        peaks = [
            ranks.submit(extra_memory, train, case, folder, setup=partial(warm_up, rank, port))
            for rank in range(case.ranks)
        ]
        return max(peak.result() for peak in peaks)


def warm_up(rank: int, port: int, case: Case, folder: str) -> tuple[Case, str]:
    """Load libraries in this process by a tiny training, so that they do not count."""
    if case.ranks > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": str(case.ranks),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(case.ranks),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "plan",
        }
    train(replace(case, lm=llama(4096, 64, 2)), folder)
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return case, folder


def train(case: Case, folder: str) -> None:
    """Train for some steps."""
    data = topics_data(
        Path(folder),
        block_size=case.block_size,
        batch_size=case.batch_size,
        max_train_tokens=STEPS * case.ranks * case.batch_size * case.block_size,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=case.ranks,
        strategy=FSDP2Strategy() if case.ranks > 1 else "auto",
        precision=case.precision,
        max_steps=STEPS,
        gradient_clip_val=CLIP,
        **SILENT,
    )
    seeded()
    module = LitCausalLM(case.lm, optimizer=partial(AdamW, lr=1e-5), cache_dir=folder)
    trainer.fit(module, datamodule=data)


def weightless(lm: LMConfig) -> PreTrainedModel:
    """Return a model on the meta device, without weights."""
    with torch.device("meta"):
        hf_model: PreTrainedModel = AutoModelForCausalLM.from_config(build_hf_config(lm))
    return hf_model


def count(module: nn.Module) -> int:
    """Return the number of parameters; tied ones count once."""
    return sum(weight.numel() for weight in module.parameters())


if __name__ == "__main__":
    harness.command_line(plan)
