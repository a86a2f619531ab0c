"""Teacher: the model under the moving average of its weights."""

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
from lit_entrodrop.model.clean_pass import Batch, forward_clean
from lit_entrodrop.model.head.fused import FusedPredictions
from lit_entrodrop.runtime.sharding import local_shard
from regularizers import Outputs, Requirements

AVERAGE = "average"


class Teacher:
    """Runs a model under the moving average of its weights.

    After each optimizer step, θ̄ ← decay·θ̄ + (1 − decay)·θ, starting at the initial weights. The
    average of a parameter is part of the optimizer's state, like its moments. So it is sharded,
    saved and restored with them, and is neither trained nor exported.

    Args:
        causal_lm: Trained model.
        optimizer: Optimizer of its parameters or shards.
        decay: Decay of the average per step, in [0, 1).
    """

    def __init__(self, causal_lm: CausalLM, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self._causal_lm = causal_lm
        self._optimizer = optimizer
        self._decay = decay
        self._initial: dict[Tensor, Tensor] = {}
        optimizer.register_step_pre_hook(lambda *_: self._keep_initial())
        optimizer.register_step_post_hook(lambda *_: self._update())

    def __call__(self, batch: Batch, required: Requirements = NO_REQUIREMENTS) -> Outputs:
        """Run the teacher on the uncorrupted tokens of a batch, in train mode, without gradient.

        Dropout inside the model thus affects the teacher as it affects the model.
        """
        with self._in_place(), torch.no_grad():
            outputs = forward_clean(self._causal_lm, batch, required)
            if isinstance(outputs.predictions, FusedPredictions):
                # It runs after the model's own head has its weights back.
                head = copy.deepcopy(outputs.predictions.head).requires_grad_(False)
                outputs = replace(outputs, predictions=replace(outputs.predictions, head=head))
            return outputs

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Exchange weights and averages within the context, without changing a bit."""
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
            # The backward pass of an earlier forward pass needs the gathered weights.
            self._causal_lm.unshard()

    def _states(self) -> list[tuple[Tensor, dict[str, Any]]]:
        groups = self._optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        return [(each, self._optimizer.state.get(each, {})) for each in parameters]

    def _keep_initial(self) -> None:
        # An optimizer initializes only an empty state, so the average is added after its step.
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
        # Gathered weights of a forward pass would be stale.
        causal_lm.reshard()
    for left, right in pairs:
        # Values are copied, because FSDP2 keeps the address of each shard.
        kept = left.clone()
        left.copy_(right)
        right.copy_(kept)
