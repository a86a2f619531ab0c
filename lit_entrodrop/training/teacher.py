"""A teacher made of the model itself: the moving average of the weights that are trained."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.model.head.fused import FusedPredictions
from lit_entrodrop.runtime.sharding import local_shard
from regularizers import Outputs, Requirements

AVERAGE = "average"


class Teacher:
    """A model with the moving average of its weights in place of its weights.

    After each optimizer step, θ̄ ← decay·θ̄ + (1 − decay)·θ, from the initial weights on. The
    average of a parameter is part of the optimizer's state, beside its moments: so it is sharded,
    saved and restored as they are, and is neither trained nor exported.

    Args:
        causal_lm: the model that is trained.
        optimizer: steps its parameters, of which it may hold shards.
        decay: of the average per step, in [0, 1).
    """

    def __init__(self, causal_lm: CausalLM, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self._causal_lm = causal_lm
        self._optimizer = optimizer
        self._decay = decay
        self._initial: dict[Tensor, Tensor] = {}
        optimizer.register_step_pre_hook(lambda *_: self._keep_initial())
        optimizer.register_step_post_hook(lambda *_: self._update())

    def __call__(self, batch: Batch, required: Requirements = NO_REQUIREMENTS) -> Outputs:
        """Run the teacher on the uncorrupted tokens of a batch, in eval mode, without gradient.

        Args:
            batch: a batch on the device.
            required: whether logits or the divergence between passes is required.
        """
        with self._in_place():
            outputs = score_clean(self._causal_lm, batch, required)
            if isinstance(outputs.predictions, FusedPredictions):
                # It is run when the model's own head has its weights again.
                head = copy.deepcopy(outputs.predictions.head).requires_grad_(False)
                outputs = replace(outputs, predictions=replace(outputs.predictions, head=head))
            return outputs

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Give the model the averages for its weights, and then its weights back, bit by bit."""
        pairs = [
            (local_shard(parameter.data), local_shard(state[AVERAGE]))
            for parameter, state in self._states()
            if AVERAGE in state
        ]
        _exchange(pairs, self._causal_lm)
        try:
            yield
        finally:
            _exchange(pairs, self._causal_lm)
        if isinstance(self._causal_lm, FSDPModule):
            # The backward pass of a forward pass before this one finds it as it was.
            self._causal_lm.unshard()

    def _states(self) -> list[tuple[Tensor, dict[str, Any]]]:
        groups = self._optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        return [(each, self._optimizer.state.get(each, {})) for each in parameters]

    def _keep_initial(self) -> None:
        # An optimizer takes a state that is not empty for one of its own: it must come first.
        self._initial = {
            parameter: parameter.detach().clone()
            for parameter, state in self._states()
            if AVERAGE not in state
        }

    @torch.no_grad()
    def _update(self) -> None:
        averages, weights = [], []
        for parameter, state in self._states():
            if parameter.grad is None and not state:
                continue
            if AVERAGE not in state:
                self._optimizer.state[parameter][AVERAGE] = self._initial[parameter]
            averages.append(local_shard(self._optimizer.state[parameter][AVERAGE]))
            weights.append(local_shard(parameter))
        self._initial = {}
        if averages:
            get_ema_multi_avg_fn(self._decay)(averages, weights, 0)


def _exchange(pairs: list[tuple[Tensor, Tensor]], causal_lm: CausalLM) -> None:
    if isinstance(causal_lm, FSDPModule):
        # Whole weights that a forward pass has left are of the other kind.
        causal_lm.reshard()
    for left, right in pairs:
        # Values move, as FSDP2 knows the place of each shard; those of one parameter at a time.
        kept = left.clone()
        left.copy_(right)
        right.copy_(kept)
