"""Two real ranks train under every regularizer and optimizer: sharded as they do with replicas."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import schedulefree
import torch

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.training.optim import LRSchedule, Muon
from lit_entrodrop.training.strategies import FSDP2Strategy
from regularizers import EntroDrop, Regularizer
from regularizers.discovery import own_regularizers
from tests.helpers.plugins import MeanTeacher
from tests.helpers.processes import run_ranks, torchrun_environment
from tests.helpers.tiny import Tiny

STEPS = {"limit_train_batches": 2, "limit_val_batches": 1}
STRATEGIES: dict[str, Callable[[], Any]] = {"ddp": lambda: "ddp", "fsdp2": FSDP2Strategy}
KINDS: dict[str, Callable[..., Regularizer]] = {**own_regularizers(), "MeanTeacher": MeanTeacher}


class Losses(L.Callback):
    """Keeps the training loss of each step of this rank."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(outputs["loss"].item())


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "Muon": Muon,
    "AdamWScheduleFree": schedulefree.AdamWScheduleFree,
}


def train(tiny: Tiny, regularizer: Regularizer, strategy: str, **settings: Any) -> list[float]:
    losses = Losses()
    # Entropies of the epoch before are known in the second one.
    epochs = 2 if regularizer.requirements.entropy == "last_epoch" else 1
    trainer = tiny.trainer(
        strategy=STRATEGIES[strategy](),
        devices=2,
        callbacks=[losses],
        max_epochs=epochs,
        **STEPS,
    )
    lm = {
        "pretrained": str(tiny.folder / "initial"),
        "config_overrides": {"attention_dropout": 0.1},
    }
    neighbors = regularizer.requirements.holdout_neighbors
    holdout = {} if neighbors is None else {"holdout": 0.2}
    module = tiny.module(regularizer, lm=lm, **settings)
    trainer.fit(module, datamodule=tiny.data(batch_size=2, **holdout))
    if (initial := module.penalties.initial) is not None:
        # Each rank reads its rows of the files.
        assert initial.copied == 0
    return [*losses.seen, trainer.callback_metrics["val/loss"].item()]


def train_all(rank: int, tiny: Tiny) -> None:
    os.environ |= torchrun_environment(rank, 2)
    found = {
        (name, strategy): train(tiny, kind(curriculum=0.5), strategy)
        for name, kind in KINDS.items()
        for strategy in STRATEGIES
    }
    constant = LRSchedule(warmup=1, decay="constant")
    found |= {
        (name, strategy): train(
            tiny, EntroDrop(1.0), strategy, optimizer=partial(make, lr=0.01), lr_schedule=constant
        )
        for name, make in OPTIMIZERS.items()
        for strategy in STRATEGIES
    }
    torch.save(found, tiny.folder / f"losses{rank}.pt")


@pytest.fixture(scope="module")
def losses(tiny_module: Tiny) -> list[dict[tuple[str, str], list[float]]]:
    """Of each rank, by regularizer and strategy."""
    torch.manual_seed(0)
    initial = build_causal_lm(tiny_module.lm()).hf_model
    initial.save_pretrained(tiny_module.folder / "initial")
    run_ranks(train_all, tiny_module.folder, tiny_module)
    return [torch.load(tiny_module.folder / f"losses{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", KINDS)
def test_shards_train_as_replicas_do(name: str, losses: Any) -> None:
    for of_rank in losses:
        assert len(of_rank[name, "ddp"]) in (3, 5)
        assert of_rank[name, "fsdp2"] == pytest.approx(of_rank[name, "ddp"], rel=1e-5)
    assert losses[0][name, "ddp"] != losses[1][name, "ddp"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_shards_as_replicas(name: str, losses: Any) -> None:
    for of_rank in losses:
        # Muon orthogonalizes in bfloat16, and sums over shards.
        assert of_rank[name, "fsdp2"] == pytest.approx(of_rank[name, "ddp"], rel=1e-3)
        assert of_rank[name, "ddp"][-1] < of_rank[name, "ddp"][0]
    for strategy in STRATEGIES:
        assert losses[0][name, strategy][-1] == losses[1][name, strategy][-1]
