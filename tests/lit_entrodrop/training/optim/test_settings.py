from functools import partial
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn

from lit_entrodrop.training.optim import check_can_step
from lit_entrodrop.training.optim.settings import OptimizerSettings


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SparseAdam, {}),
        (torch.optim.Muon, {}),
        (torch.optim.AdamW, {"lr": -1.0}),
        (torch.optim.SGD, {"lr": float("inf")}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": float("nan")}),
        (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 100.0}),
        (schedulefree.AdamWScheduleFree, {"lr": -1.0}),
        (schedulefree.AdamWScheduleFree, {"weight_decay": float("nan")}),
    ],
)
def test_optimizer_that_cannot_step_is_refused(kind: Any, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"model\.optimizer.*: expected"):
        check_can_step(partial(kind, **settings))


def test_what_an_optimizer_counts_in_its_groups_is_no_setting() -> None:
    """A resumed run would start to count again."""
    optimizer = schedulefree.AdamWScheduleFree([nn.Parameter(torch.ones(2))], lr=0.1)
    [settings] = OptimizerSettings(optimizer)._groups
    assert {"lr", "betas", "weight_decay", "warmup_steps"} <= settings.keys()
    assert not settings.keys() & {"params", "k", "weight_sum", "lr_max", "train_mode"}
