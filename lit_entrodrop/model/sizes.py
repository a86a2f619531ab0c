"""Parameter counts of a model and its parts."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from lit_entrodrop.model.building import transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM


@dataclass(frozen=True)
class Sizes:
    """Parameter counts; a tied embedding and head count once.

    Args:
        parameters: Number of parameters, including adapters.
        trainable: Number of parameters with a gradient.
        block: Number of parameters in the largest transformer block.
        block_trainable: Number of them with a gradient.
        around: Number of parameters outside of the blocks, such as embedding and head.
        around_trainable: Number of them with a gradient.
        vocabulary_size: Number of tokens that the head predicts, V.
        hidden_size: Hidden size of the model, D.
        layers: Number of transformer blocks.
        quantizable: Number of frozen parameters in linear layers other than the head, which
            ``lm.quantize`` stores in 4 bits.
        quantizable_layer: Number of them in the largest layer, which is dequantized to compute.
    """

    parameters: int
    trainable: int
    block: int
    block_trainable: int
    around: int
    around_trainable: int
    vocabulary_size: int
    hidden_size: int
    layers: int
    quantizable: int = 0
    quantizable_layer: int = 0


def sizes_of(causal_lm: CausalLM) -> Sizes:
    """Count the parameters of a model.

    >>> from lit_entrodrop.model.building import build_on_meta
    >>> from lit_entrodrop.model.config import LMConfig
    >>> sizes_of(build_on_meta(LMConfig())).layers
    3
    """
    return count(causal_lm, causal_lm.unwrapped.get_output_embeddings())


def count(model: nn.Module, head: nn.Module) -> Sizes:
    """Count the parameters of any model, given its linear layer that predicts tokens."""
    blocks = transformer_blocks(model)
    every = set(model.parameters())
    within = {parameter for block in blocks for parameter in block.parameters()}
    heads = set(head.modules())
    quantizable = [
        module.weight.numel()
        for module in model.modules()
        if type(module) is nn.Linear and not module.weight.requires_grad
        if module not in heads
    ]
    weight: torch.Tensor = getattr(head, "base_layer", head).weight  # type: ignore[assignment]
    return Sizes(
        parameters=_count(every),
        trainable=_count_trainable(every),
        block=max((_count(block.parameters()) for block in blocks), default=0),
        block_trainable=max((_count_trainable(block.parameters()) for block in blocks), default=0),
        around=_count(every - within),
        around_trainable=_count_trainable(every - within),
        vocabulary_size=weight.shape[0],
        hidden_size=weight.shape[1],
        layers=len(blocks),
        quantizable=sum(quantizable),
        quantizable_layer=max(quantizable, default=0),
    )


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _count_trainable(parameters: Iterable[nn.Parameter]) -> int:
    return _count(parameter for parameter in parameters if parameter.requires_grad)
