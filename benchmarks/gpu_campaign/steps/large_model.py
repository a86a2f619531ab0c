"""Full fine-tuning of a large model on one GPU, against what ``plan`` predicts.

The model has random weights. Weights, gradients and both moments of AdamW are in bf16, 8 bytes per
weight, because fp32 leaves too little room for activations. bf16 weights lose small updates: this
measures memory and speed, not learning.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import lightning as L
import torch

from benchmarks import harness
from benchmarks.gpu_campaign.cases import Row
from benchmarks.gpu_campaign.sizes import random_model
from benchmarks.gpu_campaign.steps.training_step import speed_of
from benchmarks.live_fit import CLIP, SILENT, seeded, topics_data
from benchmarks.memory import gpu_peak
from lit_entrodrop.commands.plan.candidates import Candidate
from lit_entrodrop.commands.plan.estimates.model_memory import optimizer_bytes
from lit_entrodrop.commands.plan.planner import Planner
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.hardware import GB, find_hardware
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW
from regularizers import EntroDrop

OPTIMIZER = partial(AdamW, lr=1e-5)


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


def measure_large(
    model: str, length: int, batch_size: int, steps: int, warmup: int, device: str
) -> Iterator[Row]:
    """Train for some steps with EntroDrop, in the setup that ``plan`` recommends for an H200.

    Args:
        model: Name of the architecture.
        length: Tokens in a block.
        batch_size: Blocks in a step.
        steps: Number of steps.
        warmup: Number of first steps that the speed excludes.
        device: Device, ``cuda`` or ``cpu``.
    """
    harness.prepare(torch.get_num_threads(), device)
    lm = random_model(model, dtype="bfloat16")
    planned = recommended(lm, length, batch_size)
    lm = random_model(
        model, dtype="bfloat16", activation_checkpointing=planned.activation_checkpointing
    )
    with TemporaryDirectory() as folder, gpu_peak(device) as peak:
        data = topics_data(Path(folder), block_size=length, batch_size=planned.batch_size)
        recorder = StepRecorder(device)
        seeded()
        module = LitCausalLM(lm, [EntroDrop()], OPTIMIZER, cache_dir=data.hparams["cache_dir"])
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            accumulate_grad_batches=planned.accumulate,
            gradient_clip_val=CLIP,
            callbacks=[recorder],
            **{**SILENT, "log_every_n_steps": 1},
        )
        trainer.fit(module, datamodule=data)
        parameters = sum(parameter.numel() for parameter in module.parameters())
    timed = recorder.seconds[warmup * planned.accumulate :]
    tokens_per_s = planned.batch_size * length / harness.summary(timed)["median"]
    yield {
        "model": model,
        "parameters": parameters,
        "length": length,
        "batch_size": planned.batch_size,
        "recomputed": planned.activation_checkpointing,
        **harness.milliseconds(timed),
        **speed_of(tokens_per_s, lm, length),
        "planned_tokens_per_s": planned.tokens_per_second,
        "peak_gib": peak.gib,
        "planned_gib": planned.device_gb * GB / 2**30,
        "losses": recorder.losses,
    }


def recommended(lm: LMConfig, length: int, batch_size: int) -> Candidate:
    """Return what ``plan`` recommends for a model on one H200."""
    workload = Workload(
        lm=lm,
        batch_size=batch_size,
        global_batch_size=batch_size,
        block_size=length,
        precision="32-true",
        optimizer=optimizer_bytes(OPTIMIZER, getattr(torch, lm.dtype)),
    )
    found = Planner(workload, find_hardware("h200")).candidates(1)
    return next(each for each in found if each.strategy == "ddp")
