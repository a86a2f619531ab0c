"""Penalties on parameters: their gradients, wherever the shards are."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_entrodrop.runtime.sharding import local_shard
from lit_entrodrop.training.initial_weights import InitialWeights, ranks_per_copy
from lit_entrodrop.training.optim.naming import named_parameters
from regularizers import Regularizers
from regularizers.penalties import penalize


class ParameterPenalties:
    """Adds the penalties that regularizers put on parameters to each optimizer step.

    Args:
        regularizers: Regularizers of the run.
    """

    def __init__(self, regularizers: Regularizers) -> None:
        self._regularizers = regularizers
        self._names: dict[Tensor, str] = {}
        #: Initial values of the parameters; None unless they are required.
        self.initial: InitialWeights | None = None

    def keep_initial(self, model: nn.Module | None, source: str | None = None) -> None:
        """Note the trained parameters of a model, and their initial values if they are required.

        Call it on every rank, before a checkpoint is restored: a resumed run takes the initial
        values from the model too. Nothing is noted if no model is trained.

        Args:
            model: Trained model.
            source: Location of the pretrained model that it is, see
                :func:`~lit_entrodrop.model.loading.locate`; None for random weights.
        """
        if model is None or not self._regularizers.penalizes_parameters:
            return
        trained = [each for each in named_parameters(model) if each.parameter.requires_grad]
        self._names = {each.parameter: each.names[0] for each in trained}
        required = self._regularizers.requirements
        if required.initial_weights:
            self.initial = InitialWeights(trained, source, required.initial_copy)

    def add(
        self, optimizer: torch.optim.Optimizer, progress: float, active: Tensor
    ) -> dict[str, Tensor]:
        """Add the gradients of all penalties to those of the coming step, before they are clipped.

        A decoupled penalty moves the parameters at once. Parameters without a gradient are skipped.

        Args:
            optimizer: Optimizer that is about to step.
            progress: Fraction of all optimizer steps that are done, in [0, 1].
            active: Whether the step changes the parameters, a scalar.

        Returns:
            Penalties by name; their mean over ranks is that of the whole model.
        """
        penalties: dict[str, Tensor] = {}
        for group in optimizer.param_groups if self._names else ():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._add_to(parameter, group["lr"] * active, progress, penalties)
        return penalties

    def state_dict(self) -> dict[str, Any]:
        """Return an entry of a checkpoint that identifies the initial weights."""
        return {} if self.initial is None else {"initial_weights": self.initial.digest}

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that a resumed run has the initial weights of the run that it continues.

        Raises:
            ValueError: If they differ.
        """
        saved = checkpoint.get("initial_weights")
        if self.initial is not None and saved not in (None, self.initial.digest):
            raise ValueError(
                "model.lm: expected the initial weights of the run, towards which a regularizer "
                "pulls, got others: resume with the same pretrained model, from the same files"
            )

    def _add_to(
        self, parameter: Tensor, rate: Tensor, progress: float, penalties: dict[str, Tensor]
    ) -> None:
        assert parameter.grad is not None, "the caller skips the others"
        numbers = local_shard(parameter.detach()).view(-1)
        gradient = local_shard(parameter.grad).view(-1)
        share = ranks_per_copy(parameter)
        name = self._names[parameter]
        initial = partial(self._initial_part, parameter)
        changed = numbers, gradient, initial, rate, progress
        for key, penalty in penalize(self._regularizers, name, *changed):
            penalties[key] = penalties.get(key, 0) + penalty * share

    def _initial_part(self, parameter: Tensor, part: slice) -> Tensor | None:
        return None if self.initial is None else self.initial.part(parameter, part)
