"""Penalties on parameters as gradients."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from regularizers.compose import Regularizers
from regularizers.parameters import ParameterPart

PART = 2**24  # numbers that are penalized at once


def penalize(
    regularizers: Regularizers,
    name: str,
    numbers: Tensor,
    gradient: Tensor,
    initial: Callable[[slice], Tensor | None],
    rate: Tensor | float,
    progress: float,
) -> Iterator[tuple[str, Tensor]]:
    """Add the gradients of all penalties on a parameter to its gradient.

    A decoupled penalty moves the numbers at once.

    Args:
        regularizers: Regularizers of the run.
        name: Name of the parameter.
        numbers: Numbers ``[n]`` of the parameter, or of the local shard; changed in place.
        gradient: Their gradient ``[n]``; changed in place.
        initial: Function from a slice of the numbers to their values before training, fp32; it
            returns None unless they are required.
        rate: Learning rate of the parameter.
        progress: Fraction of all optimizer steps that are done, in [0, 1].

    Yields:
        Name and value, a scalar, of each penalty on each part of the parameter.

    >>> from regularizers import L2SP
    >>> numbers, gradient, chosen = torch.ones(2), torch.zeros(2), Regularizers([L2SP(0.5)])
    >>> penalties = penalize(chosen, "w", numbers, gradient, lambda _: torch.zeros(2), 0.1, 0.0)
    >>> [(name, value.item()) for name, value in penalties]
    [('l2_sp/penalty', 0.5)]
    >>> gradient
    tensor([0.5000, 0.5000])
    """
    for start in range(0, len(numbers), PART):
        part = slice(start, start + PART)
        values = numbers[part].float().clone().requires_grad_()
        seen = ParameterPart(name, values, initial(part))
        for penalty_name, regularizer, penalty in regularizers.on_parameter(seen, progress):
            [slope] = torch.autograd.grad(penalty, values)
            if regularizer.decoupled:
                step = torch.as_tensor(rate, device=slope.device) * slope
                numbers[part] -= step.to(numbers.dtype)
            else:
                gradient[part] += slope.to(gradient.dtype)
            yield penalty_name, penalty.detach()
