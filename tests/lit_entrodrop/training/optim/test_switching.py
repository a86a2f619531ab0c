from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import schedulefree
import torch
from torch import nn

from lit_entrodrop.training.optim import (
    AdamW,
    evaluation_weights,
    switches_weights,
    to_evaluation,
    to_training,
)


def trained(layer: nn.Linear, steps: int = 3) -> Any:
    optimizer = schedulefree.AdamWScheduleFree(layer.parameters(), lr=0.1)
    to_training(optimizer, layer)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return optimizer


def test_training_weights_come_back_to_the_bit() -> None:
    layer = nn.Linear(3, 3)
    optimizer = trained(layer)
    before, state = deepcopy(layer.state_dict()), deepcopy(optimizer.state_dict())
    for _ in range(2):
        to_evaluation(optimizer, layer)
        evaluated = 10 / 9 * before["weight"] - 1 / 9 * optimizer.state[layer.weight]["z"]
        torch.testing.assert_close(layer.weight.detach(), evaluated)
        to_training(optimizer, layer)
        assert torch.equal(layer.weight, before["weight"])
    torch.testing.assert_close(optimizer.state_dict(), state, atol=0, rtol=0)


def test_weights_are_exchanged_once_in_nested_contexts() -> None:
    layer = nn.Linear(3, 3)
    optimizer = trained(layer)
    trainer: Any = SimpleNamespace(lightning_module=layer, optimizers=[optimizer])
    before = layer.weight.detach().clone()
    with evaluation_weights(trainer):
        evaluated = layer.weight.detach().clone()
        with evaluation_weights(trainer):
            assert torch.equal(layer.weight, evaluated)
        assert torch.equal(layer.weight, evaluated)
    assert not torch.equal(evaluated, before)
    assert torch.equal(layer.weight, before)


def test_other_optimizers_keep_their_weights() -> None:
    layer = nn.Linear(3, 3)
    optimizer = AdamW(layer.parameters())
    assert not switches_weights(optimizer)
    with evaluation_weights(SimpleNamespace(lightning_module=layer, optimizers=[optimizer])):  # type: ignore[arg-type]
        assert not optimizer.state
