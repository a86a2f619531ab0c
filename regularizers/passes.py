"""Forward passes of a training step under regularizers, whatever runs the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from regularizers.compose import Regularizers
from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep

Perturb = Callable[[Tensor], Tensor]


def perturbed_inputs(regularizers: Regularizers, step: TrainingStep) -> tuple[Tensor, Perturb]:
    """Return the corrupted tokens of a step, and the function that perturbs their embeddings."""
    return regularizers.on_input_ids(step), partial(regularizers.on_embeddings, step=step)


@dataclass(frozen=True)
class RepeatedPass:
    """Run the model again; a :class:`~regularizers.training_step.SecondForward`.

    Args:
        forward: Function that runs the model on token ids ``[B, T]``, and maps its embeddings by a
            second function, or keeps them if that is None.
        regularizers: Regularizers of the run.
        step: The training step.
    """

    forward: Callable[..., Any]
    regularizers: Regularizers
    step: TrainingStep

    def __call__(self, input_ids: Tensor | None = None, perturb: Perturb | None = None) -> Outputs:
        """Return the outputs for other inputs, or for those of the first pass."""
        outputs: Outputs = self.run(input_ids, perturb)
        return outputs

    def run(
        self,
        input_ids: Tensor | None = None,
        perturb: Perturb | None = None,
        **options: Any,
    ) -> Any:
        """Run the model with further arguments of ``forward``."""
        if input_ids is not None or perturb is not None:
            given = self.step.input_ids if input_ids is None else input_ids
            return self.forward(given, perturb, **options)
        # As in the first pass, these hooks may require a second one.
        step = replace(self.step, second_forward=self)
        return self.forward(*perturbed_inputs(self.regularizers, step), **options)


def seed_dropout(step: TrainingStep) -> None:
    """Make the model's own dropout a function of the step, so that a resumed run repeats it.

    >>> from regularizers.testing import make_step
    >>> seed_dropout(make_step())
    >>> first = torch.rand(1)
    >>> seed_dropout(make_step())
    >>> torch.equal(torch.rand(1), first)
    True
    """
    seed = replace(step, stream=-1).generator().initial_seed()
    seed_default_generators(seed, step.input_ids.device)


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the default generator of the CPU and of a device.

    ``torch.manual_seed`` seeds every kind of device. It takes about a millisecond if one of them is
    not initialized, because it then records the call stack.

    >>> seed_default_generators(0, torch.device("cpu"))
    >>> torch.default_generator.initial_seed()
    0
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
