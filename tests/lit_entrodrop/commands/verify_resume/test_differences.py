"""Differences that are made by hand are found and named, and nothing else is."""

from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from lit_entrodrop.commands.verify_resume.differences import Comparison, Difference, without_root
from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights


def compared(whole: Any, resumed: Any) -> Comparison:
    comparison = Comparison()
    comparison.compare(whole, resumed, "ckpt")
    return comparison


def state(**changes: Any) -> dict[str, Any]:
    """Make what a checkpoint may hold."""
    values = {
        "epoch": 2,
        "weights": {"a": torch.arange(6.0).view(2, 3), "nan": torch.tensor([torch.nan])},
        "optimizer": [{"lr": 0.1, "betas": (0.9, 0.95), "step": torch.tensor(3.0)}],
        "rows": torch.tensor([[1.5, torch.nan]], dtype=torch.float16),
        "empty": torch.zeros(0, 4),
        "none": None,
        "nan": float("nan"),
    }
    return {**values, **changes}


class Coded(torch.Tensor):
    """A tensor of codes and scales, as torchao stores the moments of its optimizers."""

    @staticmethod
    def __new__(cls, codes: Tensor, scales: Tensor) -> "Coded":
        made: Coded = torch.Tensor._make_wrapper_subclass(cls, codes.shape)  # type: ignore[attr-defined]
        made.codes, made.scales = codes, scales
        return made

    codes: Tensor
    scales: Tensor

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scales"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def test_parts_of_a_tensor_are_compared() -> None:
    codes = torch.arange(4, dtype=torch.uint8)
    whole, other = (Coded(codes, torch.tensor([scale])) for scale in (1.0, 2.0))
    assert not compared(whole, Coded(codes.clone(), torch.tensor([1.0]))).differences
    [difference] = compared(whole, other).differences
    assert difference.name == "ckpt.scales[0]"


def test_equal_states_are_counted() -> None:
    comparison = compared(state(), state())
    assert comparison == Comparison(tensors=5, values=6)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"epoch": 3}, "ckpt.epoch: 2 uninterrupted, 3 resumed; 1 apart"),
        ({"epoch": 2.0}, "ckpt.epoch: 2 uninterrupted, 2.0 resumed; 0 apart"),
        ({"none": "x"}, "ckpt.none: None uninterrupted, x resumed"),
        ({"nan": 1.0}, "ckpt.nan: nan uninterrupted, 1.0 resumed; nan apart"),
        ({"new": {"a": 1}}, "ckpt.new: nothing uninterrupted, dict of 1 resumed"),
        ({"epoch": torch.ones(2)}, "ckpt.epoch: 2 uninterrupted, a tensor (2,) resumed"),
        (
            {"optimizer": [{"lr": 0.1, "betas": (0.9, 0.5), "step": torch.tensor(3.0)}]},
            "ckpt.optimizer.0.betas.1: 0.95 uninterrupted, 0.5 resumed; 0.45 apart",
        ),
        (
            {"optimizer": [{"lr": 0.1, "betas": (0.9, 0.95), "step": torch.tensor(4.0)}]},
            "ckpt.optimizer.0.step: 3.0 uninterrupted, 4.0 resumed; "
            "1 of 1 elements differ, by at most 1",
        ),
        (
            {"rows": torch.tensor([[1.5, 2.0]], dtype=torch.float16)},
            "ckpt.rows[0, 1]: nan uninterrupted, 2.0 resumed; "
            "1 of 2 elements differ, by at most nan",
        ),
        (
            {"empty": torch.zeros(4, 0)},
            "ckpt.empty: (0, 4) torch.float32 uninterrupted, (4, 0) torch.float32 resumed",
        ),
    ],
)
def test_difference_is_named(changed: dict[str, Any], told: str) -> None:
    [difference] = compared(state(), state(**changed)).differences
    assert str(difference) == told


def test_one_bit_of_a_weight_is_a_difference() -> None:
    weights = torch.arange(6.0).view(2, 3)
    other = weights.clone()
    other[1, 1] = torch.nextafter(other[1, 1], torch.tensor(9.0))
    other[0, 0] = -0.0
    [difference] = compared({"w": weights}, {"w": other}).differences
    assert difference.name == "ckpt.w[0, 0]"
    assert difference.extent == f"2 of 6 elements differ, by at most {2.0**-21:.3g}"


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float64]
)
def test_any_dtype(dtype: torch.dtype) -> None:
    zeros, one = torch.zeros(3, 2).to(dtype), torch.zeros(3, 2)
    one[2, 0] = 1
    assert not compared(zeros, zeros.clone()).differences
    [difference] = compared(zeros, one.to(dtype)).differences
    assert difference.name == "ckpt[2, 0]"
    assert difference.extent == "1 of 6 elements differ, by at most 1"


def test_lazy_weights_are_read_one_at_a_time() -> None:
    held: list[str] = []

    def read(name: str) -> Tensor:
        held.append(name)
        return torch.ones(2)

    names = ["a", "b"]
    readers = {name: (torch.Size([2]), partial(read, name)) for name in names}
    both = [LazyWeights(readers), LazyWeights(readers)]
    assert compared(*both) == Comparison(tensors=2)
    assert held == ["a", "a", "b", "b"]


def test_missing_tensor_is_a_difference() -> None:
    [difference] = compared({"a": torch.ones(2), "b": 1}, {"b": 1}).differences
    assert difference == Difference("ckpt.a", "a tensor (2,)", "nothing")


def test_time_that_a_run_took_is_not_compared() -> None:
    times = ({"Timer": {"time_elapsed": {"train": seconds}}, "b": 1} for seconds in (1.0, 2.0))
    assert compared(*times) == Comparison(values=1)


def test_folder_of_the_run_is_no_difference() -> None:
    runs = ["/tmp/x/whole", "/tmp/x/resumed"]
    states = [
        without_root({"best": {f"{run}/best.ckpt": [1.0, f"{run}/last.ckpt"]}}, run) for run in runs
    ]
    assert states[0] == states[1] == {"best": {"<run>/best.ckpt": [1.0, "<run>/last.ckpt"]}}


def metrics(rows: dict[int, dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")


def test_first_metric_that_differs_comes_first() -> None:
    whole = metrics({1: {"train/loss": 3.0}, 2: {"train/loss": 2.0}, 4: {"val/loss": 1.0}})
    resumed = metrics({1: {"train/loss": 3.0}, 2: {"train/loss": 2.5}, 3: {"train/loss": 1.0}})
    comparison = Comparison()
    comparison.compare_metrics(whole, resumed, "metrics.csv")
    assert comparison.rows == 3
    assert [str(difference) for difference in comparison.differences] == [
        "metrics.csv, step 2, train/loss: 2.0 uninterrupted, 2.5 resumed; 0.5 apart",
        "metrics.csv, step 3, train/loss: nothing uninterrupted, 1.0 resumed",
        "metrics.csv, step 4, val/loss: 1.0 uninterrupted, nothing resumed",
    ]


def test_speed_is_no_difference() -> None:
    comparison = Comparison()
    rows = (metrics({1: {"tokens_per_sec": speed, "loss": 1.0}}) for speed in (10.0, 20.0))
    comparison.compare_metrics(*rows, "metrics.csv")
    assert comparison == Comparison(rows=1)
