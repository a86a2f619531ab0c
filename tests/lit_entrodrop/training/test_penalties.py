import copy
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from lit_entrodrop.model.config import LoRAConfig
from lit_entrodrop.training.optim import ParameterRule
from lit_entrodrop.training.penalties import ParameterPenalties
from regularizers import L2SP, Regularizers
from tests.helpers.tiny import Tiny

RATE, STRENGTH = 0.1, 0.3


def penalized(model: nn.Module, **settings: Any) -> ParameterPenalties:
    penalties = ParameterPenalties(Regularizers([L2SP(STRENGTH, **settings)]))
    penalties.keep_initial(model)
    return penalties


def moved(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.Tensor]:
    """Move the weight of a layer, and give it a gradient."""
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(torch.randn(3, 2))
    model.weight.grad = torch.ones(3, 2)
    return torch.optim.SGD(model.parameters(), lr=RATE), before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_gets_the_distance_and_half_precision_loses_nothing(
    dtype: torch.dtype,
) -> None:
    layer = nn.Linear(2, 3)
    layer.weight.data = layer.weight.data.to(dtype).float()
    penalties = penalized(layer)
    optimizer, before = moved(layer)
    found = penalties.add(optimizer, 0.5, torch.tensor(True))
    distance = layer.weight.double() - before.double()
    torch.testing.assert_close(
        layer.weight.grad.double(), 1 + STRENGTH * distance, rtol=1e-6, atol=1e-6
    )
    expected = STRENGTH / 2 * distance.square().sum().item()
    assert found["l2_sp/penalty"].item() == pytest.approx(expected, rel=1e-6)
    assert layer.bias.grad is None


@pytest.mark.parametrize("active", [True, False])
def test_a_decoupled_pull_moves_weights_by_the_rate_unless_the_step_is_skipped(
    active: bool,
) -> None:
    layer = nn.Linear(2, 3)
    penalties = penalized(layer, decoupled=True)
    optimizer, before = moved(layer)
    at = layer.weight.detach().double()
    penalties.add(optimizer, 0.5, torch.tensor(active))
    expected = at - active * RATE * STRENGTH * (at - before)
    torch.testing.assert_close(layer.weight.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(layer.weight.grad, torch.ones(3, 2))


def test_initial_weights_are_known_by_their_hash() -> None:
    layer = nn.Linear(2, 3)
    saved = penalized(layer).state_dict()
    penalized(copy.deepcopy(layer)).load_state_dict(saved)
    with torch.no_grad():
        layer.bias[0] += 1e-6
    with pytest.raises(ValueError, match=r"model\.lm: expected the initial weights of the run"):
        penalized(layer).load_state_dict(saved)


class Start(L.Callback):
    """Keeps the weights before training."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def distance(self, module: nn.Module) -> float:
        moved = [(p - self.weights[name]).square().sum() for name, p in module.named_parameters()]
        return torch.stack(moved).sum().item()


def test_a_run_keeps_its_weights_near_and_logs_the_penalty(tiny: Tiny) -> None:
    distances = []
    for strength in (0.0, 5.0):
        start = Start()
        module = tiny.module(
            L2SP(strength, decoupled=True), groups=[ParameterRule("embed_tokens", freeze=True)]
        )
        tiny.trainer(callbacks=[start]).fit(module, datamodule=tiny.data())
        distances.append(start.distance(module))
    assert distances[1] < 0.8 * distances[0]
    # Of the last step, before which the weights were nearly where they are now.
    logged = module.metric_logging.last_training["l2_sp/penalty"]
    assert logged == pytest.approx(5.0 / 2 * distances[1], rel=0.1)


def test_adapters_are_refused_by_name(tiny: Tiny) -> None:
    module = tiny.module(L2SP(), lm={"lora": LoRAConfig(rank=2)})
    with pytest.raises(ValueError, match=r"model\.lm\.lora: expected null .*weight_decay in its"):
        tiny.trainer(max_steps=1).fit(module, datamodule=tiny.data())
