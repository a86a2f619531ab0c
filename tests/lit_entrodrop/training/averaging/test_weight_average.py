"""Averages of weights against formulas in float64 over the weights after each step."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from lit_entrodrop.runs.checkpoints.averages import AVERAGE
from lit_entrodrop.training.averaging import Average
from lit_entrodrop.training.averaging.weight_average import WeightAverage
from lit_entrodrop.training.optim import AdamW, skip_step_if
from tests.helpers.llama import make_llama

STEPS, PER_EPOCH, SKIPPED = 12, 3, {2, 9}
# A skipped step takes no snapshot, as its weights are those of the step before.
EMA = Average(decay=0.6)
SWA = Average("swa", start=0.25, every=2)
LAWA = Average("lawa", window=3, start=2)


class Run:
    """A few parameters, their optimizer and the average of them."""

    def __init__(self, average: Average, optimizer: Any, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = [(3, 4), (5,)]
        self.weights = [
            torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
            for shape in shapes
        ]
        self.optimizer = optimizer(self.weights, lr=0.1)
        self.step = 0
        is_due = lambda: average.is_due(self.step, STEPS, PER_EPOCH)  # noqa: E731
        self.average = WeightAverage(
            make_llama(),  # type: ignore[arg-type]
            self.optimizer,
            average.coefficient,
            is_due,
            average.stored_snapshots,
        )

    def train(self, until: int) -> list[list[Tensor]]:
        """Return the weights after each step, in float64."""
        trajectory = []
        while self.step < until:
            self.step += 1
            for weight in self.weights:
                noise = torch.randn(
                    weight.shape, generator=torch.Generator().manual_seed(self.step)
                )
                weight.grad = noise.to(weight.dtype)
            skip_step_if(self.optimizer, torch.tensor(self.step in SKIPPED))
            self.optimizer.step()
            trajectory.append([each.detach().double() for each in self.weights])
        return trajectory

    def averages(self) -> list[Tensor]:
        return [self.optimizer.state[weight][AVERAGE] for weight in self.weights]


def expected(average: Average, trajectory: list[list[Tensor]]) -> list[Tensor]:
    """Average what is taken, by the definition of each kind, in float64."""
    start = 3 if average.kind == "swa" else average.start or 0
    every = average.every or (PER_EPOCH if average.kind == "lawa" else 1)
    taken = [
        weights
        for step, weights in enumerate(trajectory, 1)
        if step >= start and step % every == 0 and step not in SKIPPED
    ]
    if average.kind != "ema":
        latest = taken[-average.window :] if average.window else taken
        return [torch.stack(each).mean(0) for each in zip(*latest, strict=True)]
    means = taken[0]
    for count, weights in enumerate(taken[1:], 1):
        decay = min(average.decay or 0.0, count / (count + 9))
        pairs = zip(means, weights, strict=True)
        means = [decay * mean + (1 - decay) * weight for mean, weight in pairs]
    return means


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", [AdamW, torch.optim.SGD])
@pytest.mark.parametrize("average", [EMA, SWA, LAWA], ids=lambda each: each.kind)
def test_average_is_that_of_the_trajectory_and_survives_a_restart(
    average: Average, optimizer: Any, dtype: torch.dtype
) -> None:
    whole = Run(average, optimizer, dtype)
    trajectory = whole.train(STEPS)
    for actual, wanted in zip(whole.averages(), expected(average, trajectory), strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), wanted, atol=1e-6, rtol=1e-6)
    first = Run(average, optimizer, dtype)
    first.train(7)
    second = Run(average, optimizer, dtype)
    second.step, second.average.count = first.step, torch.tensor(float(first.average.count))
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for own, saved in zip(second.weights, first.weights, strict=True):
        own.data.copy_(saved)
    second.train(STEPS)
    for pair in ((second.weights, whole.weights), (second.averages(), whole.averages())):
        assert all(torch.equal(*each) for each in zip(*pair, strict=True))


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_without_warm_up_and_start_the_formulas_are_those_of_torch(kind: str) -> None:
    average = Average(kind, start=0, every=1)  # type: ignore[arg-type]
    run = Run(average, torch.optim.SGD, torch.float32)
    if kind == "ema":
        run.average._coefficient = lambda count: torch.tensor(0.1)
    function = get_swa_multi_avg_fn() if kind == "swa" else get_ema_multi_avg_fn(0.9)
    module = torch.nn.ParameterList(run.weights)
    copied = AveragedModel(module, multi_avg_fn=function)
    if kind == "ema":
        copied.n_averaged += 1  # of the initial weights
    for step in range(1, 6):
        run.train(step)
        if step not in SKIPPED:
            copied.update_parameters(module)
    for own, other in zip(run.averages(), copied.module, strict=True):
        torch.testing.assert_close(own, other.data)


def test_weights_and_averages_are_exchanged_without_changing_a_bit() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        run = Run(EMA, AdamW, dtype)
        run.train(5)
        weights, averages = [w.detach().clone() for w in run.weights], run.averages()
        kept = [each.clone() for each in averages]
        with run.average.in_place():
            for weight, average in zip(run.weights, kept, strict=True):
                assert torch.equal(weight, average.to(dtype))
        for now, before in zip([*run.weights, *averages], [*weights, *kept], strict=True):
            assert torch.equal(now, before)


def test_bad_settings_are_refused() -> None:
    for settings, named in (
        ({"kind": "mean"}, "kind"),
        ({"kind": "swa", "decay": 0.9}, "decay"),
        ({"kind": "ema", "window": 3}, "window"),
        ({"decay": 1.0}, "decay"),
        ({"kind": "lawa", "window": 0}, "window"),
        ({"start": -1.0}, "start"),
        ({"every": 0}, "every"),
    ):
        with pytest.raises(ValueError, match=f"model.average.*{named}"):
            Average(**settings)  # type: ignore[arg-type]
