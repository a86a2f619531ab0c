"""Averaged weights of a checkpoint, in place of the last ones."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights, shapes

Weights = Literal["best", "averaged", "raw"]
# Name of the average in the optimizer's state of a parameter, and of its settings in a checkpoint.
AVERAGE = "average"
# Averages by the name of their weights, which `read_checkpoint` finds in a folder of shards.
AVERAGES = "averages"


def choose_weights(checkpoint: dict[str, Any], weights: Weights) -> Literal["averaged", "raw"]:
    """Put the selected weights of a checkpoint under ``state_dict``; return which they are.

    Args:
        checkpoint: Content of a checkpoint, as `read_checkpoint` returns it.
        weights: Averaged or raw weights; "best" for those with the better last evaluation.

    Raises:
        ValueError: If averaged weights are requested and the checkpoint has none.
    """
    facts = checkpoint.get(AVERAGE)
    if facts is None or not facts["count"]:
        if weights == "averaged":
            found = "none" if facts is None else f"one that starts only later ({facts['kind']})"
            raise ValueError(
                f"weights: expected a checkpoint with an average of its weights, got {found}: set "
                "weights to raw, or train with model.average"
            )
        return "raw"
    chosen: Literal["averaged", "raw"] = facts["best"] if weights == "best" else weights
    if chosen == "averaged":
        checkpoint["state_dict"] = _with_averages(checkpoint, facts["parameters"])
    return chosen


def _with_averages(checkpoint: Mapping[str, Any], parameters: list[list[str]]) -> LazyWeights:
    weights = checkpoint["state_dict"]
    averages = _averages(checkpoint, parameters)
    # A tied weight has several names, and its average one of them.
    sources = {
        name: (averages, average)
        for names in parameters
        for average in names
        if average in averages
        for name in names
    }
    return LazyWeights(
        {
            name: (shape, partial(_get, *sources.get(name, (weights, name))))
            for name, shape in shapes(weights).items()
        }
    )


def _averages(checkpoint: Mapping[str, Any], parameters: list[list[str]]) -> Mapping[str, Any]:
    if AVERAGES in checkpoint:
        averages: Mapping[str, Any] = checkpoint[AVERAGES]
        return averages
    [optimizer] = checkpoint["optimizer_states"]
    numbers = [each for group in optimizer["param_groups"] for each in group["params"]]
    return {
        names[0]: optimizer["state"][number][AVERAGE]
        for number, names in zip(numbers, parameters, strict=True)
        if AVERAGE in optimizer["state"].get(number, {})
    }


def _get(weights: Mapping[str, Any], name: str) -> Tensor:
    weight: Tensor = weights[name]
    return weight
