"""Twenty steps of full fine-tuning of an 8B model on one GPU. NO GPU HAS RUN THIS SCRIPT YET.

The model has the shape of Llama-3.1-8B and random weights. AdamW with fp32 states needs 16 bytes
per weight, 128 GB. Therefore weights and gradients are in bf16, and ``torchao.optim.AdamW8bit``
keeps its states in 8 bits with stochastic rounding, which preserves small steps: 6 bytes per
weight, 48 GB. Install it with ``pip install torchao``. The tests run the script on a CPU, with a
tiny model and our AdamW.
"""

import importlib.util
import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal

import lightning as L
import torch

from benchmarks import harness
from benchmarks.gpu import ARCHITECTURES, GIB, on_gpu, release_gpu
from benchmarks.live_fit import CLIP, SILENT, TOKENIZER, seeded, topics_data
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW
from regularizers import EntroDrop

LEARNING_RATE = 1e-5
PEAK_FLOPS = 989e12


class StepRecorder(L.Callback):
    """Record loss and duration of each step.

    Args:
        device: Device to synchronize.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        harness.synchronize(self.device)
        self._start = perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record the mean loss per token; the step returns the sum divided by T."""
        harness.synchronize(self.device)
        self.seconds.append(perf_counter() - self._start)
        labels = batch["labels"]
        self.losses.append(float(outputs["loss"] * labels.shape[1] / (labels != -100).sum()))


def gpu_8b(
    steps: int = 20,
    warmup: int = 5,
    length: int = 2048,
    batch_size: int = 2,
    model: str = "llama3.1-8b",
    optimizer: Literal["adamw8bit", "adamw"] = "adamw8bit",
    threads: int = 8,
    device: str = "cuda",
    out: str = harness.RESULTS,
) -> Path:
    """Train for some steps with EntroDrop; measure peak memory, tokens/s, MFU and losses.

    Args:
        steps: Number of training steps.
        warmup: Number of first steps that the speed excludes.
        length: Tokens per block.
        batch_size: Blocks per step.
        model: Name of the model: llama3.1-8b, or another of ``benchmarks.gpu.ARCHITECTURES``.
        optimizer: Optimizer: adamw8bit of torchao, or our adamw in the dtype of the weights.
        threads: Number of CPU threads.
        device: Device, cuda; cpu only checks that the script works.
        out: Folder for the results.
    """
    settings = {**locals()}
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup: expected less than {steps} steps, got {warmup}: lower it")
    harness.prepare(threads, device)
    release_gpu(device)
    lm = LMConfig(
        pretrained=None,
        architecture=ARCHITECTURES[model],
        tokenizer=TOKENIZER,
        dtype="bfloat16",
        activation_checkpointing=True,
    )
    recorder = StepRecorder(device)
    with TemporaryDirectory() as folder:
        data = topics_data(Path(folder), block_size=length, batch_size=batch_size)
        seeded()
        step = _optimizer(optimizer)
        module = LitCausalLM(lm, [EntroDrop()], step, cache_dir=data.hparams["cache_dir"])
        trainer = L.Trainer(
            accelerator="gpu" if on_gpu(device) else "cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=CLIP,
            callbacks=[recorder],
            **{**SILENT, "log_every_n_steps": 1},
        )
        trainer.fit(module, datamodule=data)
    time = harness.summary(recorder.seconds[warmup:])["median"]
    tokens_per_s = batch_size * length / time
    flops = training_flops_per_token(build_on_meta(lm), length)
    row = {
        "model": model,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        **harness.milliseconds(recorder.seconds[warmup:]),
        "tokens_per_s": tokens_per_s,
        "mfu": tokens_per_s * flops / PEAK_FLOPS,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if on_gpu(device) else math.nan,
        "first_loss": recorder.losses[0],
        "last_loss": recorder.losses[-1],
        "losses": recorder.losses,
    }
    return harness.save("gpu_8b", settings, [row], out)


def _optimizer(name: str) -> Any:
    if name == "adamw":
        return partial(AdamW, lr=LEARNING_RATE)
    if importlib.util.find_spec("torchao") is None:
        raise ValueError(
            "optimizer: expected the package torchao for adamw8bit, found none: pip install "
            "torchao, or set adamw"
        )
    optim = importlib.import_module("torchao.optim")
    return partial(optim.AdamW8bit, lr=LEARNING_RATE, bf16_stochastic_round=True)


if __name__ == "__main__":
    harness.command_line(gpu_8b)
