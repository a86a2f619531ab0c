"""Initialization of sharded models: the first rank builds the whole model, and ranks share it."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from lit_entrodrop.model.building import build_on_meta, transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig


class ShardedInit:
    """A model on the meta device, and the whole model on the first rank.

    ``causal_lm`` is the model on the meta device. ``whole`` is the model with all weights; None on
    other ranks.

    Args:
        lm: Configuration of the model.
        build_whole: Function that builds the whole model. It is called on the first rank only; its
            exceptions are raised on every rank.
        device: Device of the filled tensors.
        dtype: Dtype of the parameters; by default that of ``lm``.
    """

    def __init__(
        self,
        lm: LMConfig,
        build_whole: Callable[[], CausalLM],
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.whole, description = _build_on_first(build_whole)
        self._device = device
        self.causal_lm = build_on_meta(lm, description["hf_config"])
        self.causal_lm.fused_head = description["fused_head"]
        self.causal_lm.adds_loss = description["adds_loss"]
        for parameter in self.causal_lm.parameters():
            parameter.data = parameter.data.to(dtype)
        self._names = {module: name for name, module in self.causal_lm.named_modules()}

    def units(self) -> Iterator[nn.Module]:
        """Yield each unit of sharding, filled: every transformer block, then the model around them.

        The caller shards a unit before it takes the next, so that no rank but the first has more
        than one whole block.
        """
        for unit in (*transformer_blocks(self.causal_lm.hf_model), self.causal_lm):
            for module in unit.modules():
                self._fill(module)
            yield unit

    def copy_buffers(self) -> None:
        """Copy the buffers of the first rank, also those that a state dict leaves out.

        Models compute such buffers when they are built, for example rotary frequencies.
        """
        source = dict(self.whole.named_buffers()) if self.whole else {}
        for name, buffer in self.causal_lm.named_buffers():
            if name in source:
                buffer.copy_(source[name])
            dist.broadcast(buffer, src=0)

    def _fill(self, module: nn.Module) -> None:
        source = self.whole and self.whole.get_submodule(self._names[module])
        own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, tensor in own:
            if tensor.is_meta:
                _allocate(tensor, self._device)
                if source:
                    tensor.data.copy_(getattr(source, name))
                dist.broadcast(tensor.data, src=0)


def scatter_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole weights, read on the first rank only, into a module sharded over all ranks."""
    whole: dict[str, Any] = dict(weights) if dist.get_rank() == 0 else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, whole, options=options)


def _allocate(tensor: Tensor, device: torch.device) -> None:
    empty = torch.empty_like(tensor, device=device)
    if isinstance(tensor, nn.Parameter):
        empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
    # In place, so that tied weights stay tied.
    torch.utils.swap_tensors(tensor, empty)


def _build_on_first(build: Callable[[], CausalLM]) -> tuple[CausalLM | None, dict[str, Any]]:
    whole: CausalLM | None = None
    message: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            whole = build()
            message = [
                {
                    "hf_config": whole.unwrapped.config,
                    "fused_head": whole.fused_head,
                    "adds_loss": whole.adds_loss,
                }
            ]
        except Exception as error:
            message = [error]
    dist.broadcast_object_list(message)
    if isinstance(message[0], Exception):
        raise message[0]
    return whole, message[0]
