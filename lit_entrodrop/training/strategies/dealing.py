"""How a model gets from the first rank, which alone ever holds it whole, into shards everywhere."""

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


class Twin:
    """A model without weights, which the first rank fills unit by unit; a unit can then be sharded.

    ``causal_lm`` is the model, and ``whole``, on the first rank, the one with all weights.

    Args:
        lm: of the model.
        build_whole: called on the first rank only; what it raises is raised on every rank.
        device: on which units are filled.
        dtype: of the parameters; by default that of ``lm``.
    """

    def __init__(
        self,
        lm: LMConfig,
        build_whole: Callable[[], CausalLM],
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.whole, told = _on_first(build_whole)
        self._device = device
        self.causal_lm = build_on_meta(lm, told["hf_config"])
        self.causal_lm.fused_head = told["form"]
        for parameter in self.causal_lm.parameters():
            parameter.data = parameter.data.to(dtype)
        self._names = {module: name for name, module in self.causal_lm.named_modules()}

    def units(self) -> Iterator[nn.Module]:
        """Yield what is one shard each, filled: every transformer block, then all around them."""
        for unit in (*transformer_blocks(self.causal_lm.hf_model), self.causal_lm):
            for module in unit.modules():
                self.fill(module)
            yield unit

    def fill(self, module: nn.Module) -> None:
        """Give a module's own tensors, where they have no values yet, those of the first rank."""
        source = self.whole and self.whole.get_submodule(self._names[module])
        for name, tensor in _own_tensors(module):
            if tensor.is_meta:
                _allocate(tensor, self._device)
                if source:
                    tensor.data.copy_(getattr(source, name))
                dist.broadcast(tensor.data, src=0)

    def copy_buffers(self) -> None:
        """Give buffers the values of the first rank.

        State dicts leave out what models compute when they are built, such as rotary frequencies.
        """
        source = dict(self.whole.named_buffers()) if self.whole else {}
        for name, buffer in self.causal_lm.named_buffers():
            if name in source:
                buffer.copy_(source[name])
            dist.broadcast(buffer, src=0)


def deal_out_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a sharded module the weights that the first rank reads.

    Args:
        module: of which each rank holds its shard.
        weights: whole ones, by name; read on the first rank alone.
    """
    whole: dict[str, Any] = dict(weights) if dist.get_rank() == 0 else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, whole, options=options)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))


def _allocate(tensor: Tensor, device: torch.device) -> None:
    empty = torch.empty_like(tensor, device=device)
    if isinstance(tensor, nn.Parameter):
        empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
    # In place, so that a tied weight stays tied.
    torch.utils.swap_tensors(tensor, empty)


def _on_first(build: Callable[[], CausalLM]) -> tuple[CausalLM | None, dict[str, Any]]:
    whole: CausalLM | None = None
    told: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            whole = build()
            told = [{"hf_config": whole.unwrapped.config, "form": whole.fused_head}]
        except Exception as error:
            told = [error]
    dist.broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    return whole, told[0]
