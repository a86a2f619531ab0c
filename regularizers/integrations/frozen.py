"""Passes without gradient through frozen models."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from regularizers.outputs import Outputs

Run = Callable[[nn.Module], Outputs]


def scoring(model: nn.Module, reference: nn.Module | None) -> Callable[[Run], Outputs]:
    """Return a function that runs a frozen model in eval mode, without gradient.

    Args:
        model: Trained model.
        reference: Frozen model; None for the trained model without its adapters of peft.
    """

    def score(run: Run) -> Outputs:
        frozen = model if reference is None else reference
        within = model.disable_adapter() if reference is None else nullcontext()  # type: ignore[operator]
        training = frozen.training
        frozen.eval()
        try:
            with torch.no_grad(), within:
                return run(frozen)
        finally:
            frozen.train(training)

    return score
