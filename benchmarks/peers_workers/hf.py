"""Train with Hugging Face's Trainer: ``python -m benchmarks.peers_workers.hf FOLDER [liger]``."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DistributedSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers_workers.turns import Turns, read_settings, write_result


class TakeTurns(TrainerCallback):
    """Wait for the turn of this process.

    Args:
        steps: Optimizer steps per turn.
    """

    def __init__(self, steps: int) -> None:
        self.turns = Turns(steps)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the first turn."""
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the time of a step."""
        self.turns.step_done()


class SameOrder:
    """Mixin that reads the blocks in the order of our data module."""

    def _get_train_sampler(self, *_: Any) -> DistributedSampler[Any]:
        return DistributedSampler(self.train_dataset, 1, 0, seed=0)  # type: ignore[attr-defined]


class OrderedTrainer(SameOrder, Trainer):
    """The Trainer with our order of blocks."""


def arguments(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the training settings that differ from the defaults."""
    return {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": settings["batch_size"],
        "max_steps": settings["steps"],
        "learning_rate": settings["lr"],
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "adam_beta1": settings["betas"][0],
        "adam_beta2": settings["betas"][1],
        "weight_decay": 0.0,
        "max_grad_norm": settings["max_grad_norm"],
        "logging_steps": settings["turn"],
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": settings["device"] == "cpu",
        # TRL enables bf16 and gradient checkpointing by default.
        "bf16": settings["device"] != "cpu",
        "gradient_checkpointing": False,
    }


def pieces(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the model and the callback for a Trainer."""
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    return {"model": model, "callbacks": [TakeTurns(settings["turn"])]}


def finish(trainer: Trainer, folder: Path, packages: list[str]) -> None:
    """Train and write the losses."""
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    write_result(folder, losses, ["torch", "transformers", "accelerate", *packages])


def train(folder: Path, liger: bool) -> None:
    """Run the Trainer on the shared model and blocks, optionally with Liger's kernels."""
    settings = read_settings(folder)
    blocks = np.load(settings["blocks"])
    dataset = Dataset.from_dict({"input_ids": blocks, "labels": blocks}).with_format("torch")
    options = TrainingArguments(**arguments(settings, folder), use_liger_kernel=liger)
    finish(OrderedTrainer(args=options, train_dataset=dataset, **pieces(settings)), folder, [])


if __name__ == "__main__":
    train(Path(sys.argv[1]), liger="liger" in sys.argv[2:])
