"""Average of the weights, as part of the optimizer's state."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.runs.checkpoints.averages import AVERAGE
from lit_entrodrop.runtime.sharding import local_shard
from lit_entrodrop.training.optim import took_step

SNAPSHOT = "snapshot_{}"


class WeightAverage:
    """Average of the trained weights, updated after optimizer steps.

    The average of a parameter is part of the optimizer's state, like its moments, in fp32. So it is
    sharded, saved and restored with them, and is in no state dict of the model. A step that changes
    no weight leaves the average unchanged.

    Args:
        causal_lm: Trained model.
        optimizer: Optimizer of its parameters or shards.
        coefficient: Function from the number of snapshots taken, a scalar, to the coefficient of
            the next one.
        is_due: Function that returns whether a snapshot is taken after the current step.
        stored_snapshots: Number of latest snapshots whose mean is the average; 0 for an average by
            ``coefficient``.
    """

    def __init__(
        self,
        causal_lm: CausalLM,
        optimizer: Optimizer,
        coefficient: Callable[[Tensor], Tensor],
        is_due: Callable[[], bool] = lambda: True,
        stored_snapshots: int = 0,
    ) -> None:
        self._causal_lm = causal_lm
        self._optimizer = optimizer
        self._coefficient, self._is_due = coefficient, is_due
        self._stored_snapshots = stored_snapshots
        #: Number of snapshots so far. A tensor, because only the device knows of skipped steps.
        self.count = torch.zeros(())
        self._initial: dict[Tensor, Tensor] = {}
        self._loaded: dict[str, Any] = {}
        optimizer.register_step_pre_hook(lambda *_: self._keep_initial())
        optimizer.register_step_post_hook(lambda *_: self._update())
        optimizer.register_load_state_dict_pre_hook(self._keep_loaded)
        optimizer.register_load_state_dict_post_hook(lambda _: self._restore_precision())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Exchange weights and averages within the context, without changing a bit."""
        pairs = [
            (local_shard(parameter.data), local_shard(state[AVERAGE]))
            for parameter, state in self._states()
            if AVERAGE in state
        ]
        # An average of half-precision weights keeps its own precision.
        kept = {
            weight: weight.clone() for weight, average in pairs if weight.dtype != average.dtype
        }
        self._write(pairs, kept)
        try:
            yield
        finally:
            self._write(pairs, kept, back=True)
        if isinstance(self._causal_lm, FSDPModule):
            # The backward pass of an earlier forward pass needs the gathered weights.
            self._causal_lm.unshard()

    def names(self, module: torch.nn.Module) -> list[list[str]]:
        """Return all names of each parameter in a module, in the order of the optimizer."""
        names: dict[Tensor, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)
        return [names[parameter] for parameter, _ in self._states()]

    def _write(
        self, pairs: list[tuple[Tensor, Tensor]], kept: dict[Tensor, Tensor], back: bool = False
    ) -> None:
        if isinstance(self._causal_lm, FSDPModule):
            # Gathered weights of a forward pass would be stale.
            self._causal_lm.reshard()
        for weight, average in pairs:
            # Values are copied, because FSDP2 keeps the address of each shard.
            if weight in kept:
                weight.copy_(kept[weight] if back else average)
                continue
            own = weight.clone()
            weight.copy_(average)
            average.copy_(own)

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
        states = [
            (parameter, self._optimizer.state[parameter])
            for parameter, state in self._states()
            if parameter.grad is not None or state
        ]
        for parameter, state in states:
            # From the first step on, because a sharded checkpoint restores only what is there.
            if AVERAGE not in state:
                initial = self._initial[parameter]
                state[AVERAGE] = initial.float()
                for slot in range(self._stored_snapshots):
                    state[SNAPSHOT.format(slot)] = initial.clone()
        self._initial = {}
        if states and self._is_due():
            self.count = self.count.to(local_shard(states[0][0]).device)
            took = took_step(self._optimizer).to(self.count.device)
            if self._stored_snapshots == 0:
                self._move(states, took)
            elif took:
                self._average_latest(states)
            self.count += took

    def _move(self, states: list[tuple[Tensor, dict[str, Any]]], took: Tensor) -> None:
        """Move averages towards the weights, as `torch.optim.swa_utils` does, on the device."""
        coefficient = self._coefficient(self.count) * took
        pairs = [(local_shard(state[AVERAGE]), local_shard(weight)) for weight, state in states]
        if all(average.dtype == weight.dtype for average, weight in pairs):
            averages, weights = (list(each) for each in zip(*pairs, strict=True))
            torch._foreach_lerp_(averages, weights, [coefficient] * len(averages))
            return
        for average, weight in pairs:
            # One by one, because a copy in fp32 may be larger than the weights.
            average.lerp_(weight.float(), coefficient)

    def _average_latest(self, states: list[tuple[Tensor, dict[str, Any]]]) -> None:
        taken = int(self.count)
        newest = SNAPSHOT.format(taken % self._stored_snapshots)
        filled = min(taken + 1, self._stored_snapshots)
        for parameter, state in states:
            local_shard(state[newest]).copy_(local_shard(parameter))
            average = local_shard(state[AVERAGE]).zero_()
            for slot in range(filled):
                average += local_shard(state[SNAPSHOT.format(slot)])
            average /= filled

    def _keep_loaded(self, _: Optimizer, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def _restore_precision(self) -> None:
        """Undo the cast to the dtype of the parameter, in which an optimizer restores its state."""
        ids = [each for group in self._loaded["param_groups"] for each in group["params"]]
        for number, (_, state) in zip(ids, self._states(), strict=True):
            loaded = self._loaded["state"].get(number, {})
            if AVERAGE in loaded and state[AVERAGE].dtype != loaded[AVERAGE].dtype:
                state[AVERAGE] = loaded[AVERAGE].to(state[AVERAGE].device)
        self._loaded = {}
