"""How many parameters a model has, and where: counted on the meta device, without weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from lit_entrodrop.model.building import transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters; one that serves as embedding and as head counts once.

    Args:
        parameters: of the model, adapters included.
        trainable: those that have a gradient.
        block: of the largest transformer block.
        block_trainable: those of it that have a gradient.
        around: outside of the blocks, embedding and head among them.
        around_trainable: those of them that have a gradient.
        vocabulary_size: words that the head predicts, V.
        hidden_size: of the model, D.
        layers: transformer blocks.
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


def sizes_of(causal_lm: CausalLM) -> Sizes:
    """Count the parameters of a model.

    >>> from lit_entrodrop.model.building import build_on_meta
    >>> from lit_entrodrop.model.config import LMConfig
    >>> sizes_of(build_on_meta(LMConfig())).layers
    3
    """
    return count(causal_lm, causal_lm.unwrapped.get_output_embeddings())


def count(model: nn.Module, head: nn.Module) -> Sizes:
    """Count the parameters of a model.

    Args:
        model: with its adapters, if any.
        head: the linear layer of it that predicts words.
    """
    blocks = transformer_blocks(model)
    every = set(model.parameters())
    within = {parameter for block in blocks for parameter in block.parameters()}
    weight: torch.Tensor = getattr(head, "base_layer", head).weight  # type: ignore[assignment]
    return Sizes(
        parameters=_count(every),
        trainable=_count(every, _trainable),
        block=max((_count(block.parameters()) for block in blocks), default=0),
        block_trainable=max(
            (_count(block.parameters(), _trainable) for block in blocks), default=0
        ),
        around=_count(every - within),
        around_trainable=_count(every - within, _trainable),
        vocabulary_size=weight.shape[0],
        hidden_size=weight.shape[1],
        layers=len(blocks),
    )


def _trainable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


def _count(
    parameters: Iterable[nn.Parameter], counts: Callable[[nn.Parameter], bool] = lambda _: True
) -> int:
    return sum(parameter.numel() for parameter in parameters if counts(parameter))
