from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bitsandbytes
import lightning as L
import pytest
import schedulefree
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import nn

from lit_entrodrop.training.optim import AdamW, LRSchedule, Muon
from lit_entrodrop.training.preflight.config import check_penalties
from lit_entrodrop.training.preflight.optimizer import (
    check_schedule_of,
    check_strategy_of,
    check_suits,
)
from lit_entrodrop.training.strategies import DeepSpeedStrategy, FSDP2Strategy
from regularizers import Regularizers, WaveBound
from tests.helpers.tiny import Tiny

Make = Callable[..., torch.optim.Optimizer]
ADAMW8BIT: Make = bitsandbytes.optim.AdamW8bit
SCHEDULE_FREE: Make = schedulefree.AdamWScheduleFree


def make(kind: Make) -> torch.optim.Optimizer:
    return kind([nn.Parameter(torch.ones(2, 2))])


@pytest.mark.parametrize(
    ("kind", "strategy", "message"),
    [
        (Muon, DeepSpeedStrategy, "fsdp2 for Muon, which needs whole matrices"),
        (SCHEDULE_FREE, DeepSpeedStrategy, "AdamWScheduleFree, which exchanges the weights"),
        (ADAMW8BIT, FSDP2Strategy, "shards of FSDP2Strategy, got AdamW8bit of bitsandbytes"),
    ],
)
def test_strategies_that_cannot_shard_an_optimizer_are_refused(
    kind: Make, strategy: type[Strategy], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_strategy_of(make(kind), strategy)


@pytest.mark.parametrize(
    ("kind", "strategies"),
    [
        (AdamW, [DDPStrategy, FSDP2Strategy, DeepSpeedStrategy]),
        (ADAMW8BIT, [DDPStrategy, DeepSpeedStrategy]),
        (Muon, [SingleDeviceStrategy, DDPStrategy, FSDP2Strategy]),
        (SCHEDULE_FREE, [SingleDeviceStrategy, DDPStrategy, FSDP2Strategy]),
    ],
)
def test_other_strategies_are_not(kind: Make, strategies: list[type[Strategy]]) -> None:
    for strategy in strategies:
        check_strategy_of(make(kind), strategy)


def test_schedule_free_optimizers_have_no_decay_of_the_learning_rate() -> None:
    check_schedule_of(make(AdamW), LRSchedule())
    check_schedule_of(make(SCHEDULE_FREE), LRSchedule(decay="constant"))
    with pytest.raises(ValueError, match=r"lr_schedule\.decay: expected constant for AdamWSch"):
        check_schedule_of(make(SCHEDULE_FREE), LRSchedule())


def test_teachers_need_an_optimizer_that_evaluates_what_it_trains() -> None:
    with pytest.raises(ValueError, match=r"model\.optimizer: .* got AdamWScheduleFree"):
        check_penalties(L.Trainer(logger=False), Regularizers([WaveBound()]), make(SCHEDULE_FREE))


def test_paging_needs_a_gpu() -> None:
    def on(device: str) -> Any:
        return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))

    paged = make(bitsandbytes.optim.PagedAdamW8bit)
    check_suits(paged, on("cuda"), LRSchedule())
    with pytest.raises(ValueError, match=r"got PagedAdamW8bit, .*: choose AdamW8bit"):
        check_suits(paged, on("cpu"), LRSchedule())


def test_a_run_is_refused_before_its_text_is_read(tiny: Tiny) -> None:
    tiny.corpus.unlink()
    with pytest.raises(SystemExit, match="expected constant for AdamWScheduleFree"):
        tiny.run("fit", "--model.optimizer=schedulefree.AdamWScheduleFree")
