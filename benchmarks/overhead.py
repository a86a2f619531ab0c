"""Overhead of Lightning and this project over a bare PyTorch loop, per training step.

The model is as small as possible, so that the overhead is visible. Five arms do the same arithmetic
on the same batches of the same data loader, with the same head, optimizer, schedule and clipping.
Each adds something to the previous one:

- *bare loop*: no metrics at all;
- *Lightning, barebones*: the same in the smallest LightningModule, ``Trainer(barebones=True)``;
- *Lightning, as in fit*: that module under the trainer of ``lit-entrodrop fit``: progress bar (its
  output is discarded), metrics file, checkpoints, NaN guard;
- *plain*: our module without regularizers, including training metrics;
- *EntroDrop*: our module with EntroDrop.

The last four are real ``Trainer.fit`` runs (see :mod:`benchmarks.live_fit`). The arms run in one
process and alternate by blocks of steps in random order; differences are computed within rounds.
Start-up, validation and ends of epochs are excluded. After the first block of steps, the weights of
the plain arm must equal those of the bare loop up to rounding.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.live_fit import CLIP, LiveFit, fit, llama, seeded, topics_data
from lit_entrodrop.cli.lit_cli import default_callbacks
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.training.callbacks import Checkpoints
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW, LRSchedule, parameter_groups
from regularizers import EntroDrop
from regularizers.functional import IGNORE_INDEX, predicted_labels

LR = 1e-3
Steps = Callable[[], object]


def overhead(
    rounds: int = 40,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    steps: int = 20,
    hidden_size: int = 64,
    layers: int = 1,
    block_size: int = 32,
    batch_size: int = 2,
) -> Path:
    """Time blocks of training steps of a tiny model: bare loop, Lightning, this project.

    Args:
        rounds: Number of timed rounds; every arm takes a block of steps in each.
        threads: Number of CPU threads.
        device: Device, cpu or cuda.
        out: Folder for the results.
        steps: Steps per block.
        hidden_size: Hidden size of the model.
        layers: Number of layers of the model.
        block_size: Tokens per block of text.
        batch_size: Blocks of text per batch.
    """
    settings = {**locals()}
    where = harness.prepare(threads, device)
    lm = llama(4096, hidden_size, layers)
    total = (rounds + 3) * steps
    with TemporaryDirectory() as folder:
        data = partial(topics_data, Path(folder), block_size=block_size, batch_size=batch_size)
        bare = BareLoop(lm, data(), total, where)
        with fits(lm, data, total, device, Path(folder)) as (live, models):
            cases: dict[str, Steps] = {"bare loop": partial(bare.advance, steps)}
            cases |= {arm: partial(each.advance, steps) for arm, each in live.items()}
            harness.interleaved(cases, rounds=1, warmup=0, device=device)
            # In later steps, Adam amplifies differences due to rounding.
            settings["weights_differ_by"] = difference(bare.causal_lm, models["plain"].causal_lm)
            seconds = harness.interleaved(cases, rounds, device=device)
    return harness.save("overhead", settings, describe(seconds, steps), out)


def describe(seconds: dict[str, list[float]], steps: int) -> list[dict[str, Any]]:
    """Return one row per arm: time of a step and its differences to other arms, ms."""
    ms = {arm: [1e3 * block / steps for block in blocks] for arm, blocks in seconds.items()}
    rows, before = [], "bare loop"
    for arm in ms:
        added = harness.summary(_minus(ms[arm], ms["bare loop"]))
        to_before = harness.summary(_minus(ms[arm], ms[before]))
        rows.append(
            {
                "case": arm,
                "ms": harness.summary(ms[arm])["median"],
                "over_bare_ms": added["median"],
                "over_bare_ms_iqr": added["iqr"],
                "over_arm_before_ms": to_before["median"],
                "over_arm_before_ms_iqr": to_before["iqr"],
                "rounds": added["rounds"],
            }
        )
        before = arm
    return rows


def difference(one: CausalLM, other: CausalLM) -> float:
    """Return the largest difference between the weights of two models."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def mean_nll(causal_lm: CausalLM, batch: Batch) -> Tensor:
    """Return the loss of plain fine-tuning, the mean over tokens with a label."""
    labels, document_ids = batch["labels"], batch["document_ids"]
    valid = (predicted_labels(labels, document_ids) != IGNORE_INDEX).float()
    loss: Tensor = causal_lm(
        batch["input_ids"], labels, batch["position_ids"], document_ids, token_weight=valid
    ).weighted_loss
    return loss / valid.sum()


class BareLoop:
    """Plain fine-tuning in a few lines of PyTorch, with the batches in the order of a fit."""

    def __init__(
        self, lm: LMConfig, data: TextDataModule, total: int, device: torch.device
    ) -> None:
        seeded()
        self.causal_lm = build_causal_lm(lm).to(device)
        self.optimizer = AdamW(parameter_groups(self.causal_lm), lr=LR)
        factor = partial(LRSchedule().factor, total_steps=total)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        data.setup()
        self.batches = iter(data.train_dataloader())
        self.device = device

    def advance(self, steps: int) -> None:
        """Take some steps."""
        for _ in range(steps):
            on_device = {name: t.to(self.device) for name, t in next(self.batches).items()}
            mean_nll(self.causal_lm, on_device).backward()
            torch.nn.utils.clip_grad_norm_(self.causal_lm.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()


class SmallestModule(L.LightningModule):
    """The bare loop as a LightningModule."""

    def __init__(self, lm: LMConfig, total: int) -> None:
        super().__init__()
        self.causal_lm = build_causal_lm(lm)
        self.total = total

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        return mean_nll(self.causal_lm, batch)

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule of the bare loop."""
        optimizer = AdamW(parameter_groups(self), lr=LR)
        factor = partial(LRSchedule().factor, total_steps=self.total)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@contextlib.contextmanager
def fits(
    lm: LMConfig, data: Callable[[], TextDataModule], total: int, device: str, folder: Path
) -> Iterator[tuple[dict[str, LiveFit], dict[str, Any]]]:
    """Yield the fits and modules of all arms except the bare loop."""
    ours = partial(LitCausalLM, lm, optimizer=partial(AdamW, lr=LR), cache_dir=str(folder))
    makers: dict[str, Callable[[], L.LightningModule]] = {
        "Lightning, barebones": partial(SmallestModule, lm, total),
        "Lightning, as in fit": partial(SmallestModule, lm, total),
        "plain": ours,
        "EntroDrop": partial(ours, regularizers=[EntroDrop()]),
    }
    live, modules = {}, {}
    with contextlib.redirect_stdout(io.StringIO()):
        for arm, make in makers.items():
            seeded()
            modules[arm], own = make(), data()
            start = partial(fit, module=modules[arm], data=own, steps=total, device=device)
            live[arm] = LiveFit(partial(start, **trainer_options(arm, folder / arm)))
        yield live, modules
        for each in live.values():
            each.close()


def trainer_options(arm: str, folder: Path) -> dict[str, Any]:
    """Return the trainer options of an arm: barebones, or as in ``lit-entrodrop fit``."""
    if "barebones" in arm:
        return {"barebones": True}
    return {
        "logger": MetricsFile(folder),
        "callbacks": [*default_callbacks("fit", folder), Checkpoints()],
        "default_root_dir": folder,
        # As in configs/base.yaml.
        "log_every_n_steps": 10,
        "num_sanity_val_steps": -1,
        "enable_model_summary": False,
    }


def _minus(values: list[float], others: list[float]) -> list[float]:
    return [a - b for a, b in zip(values, others, strict=True)]


if __name__ == "__main__":
    harness.command_line(overhead)
