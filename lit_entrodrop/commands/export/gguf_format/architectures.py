"""Architectures that llama.cpp computes as Transformers does: their metadata and tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Architecture:
    """A model type of Transformers in llama.cpp.

    Args:
        name: Name of the architecture in llama.cpp.
        interleaved: Whether llama.cpp rotates adjacent rows of queries and keys.
    """

    name: str
    interleaved: bool = False


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "mistral": Architecture("llama", interleaved=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
}


def check_architecture(config: PretrainedConfig) -> None:
    """Refuse a model that llama.cpp would compute in another way, or that is not converted here.

    Raises:
        ValueError: If the model type, the activation or the rotary embedding is another.
    """
    expected, got = "", ""
    if config.model_type not in ARCHITECTURES:
        expected, got = f"a model of type {', '.join(ARCHITECTURES)}", config.model_type
    elif config.hidden_act not in ("silu", "swish"):
        expected, got = "hidden_act silu", config.hidden_act
    elif (rope := rope_parameters(config)["rope_type"]) not in ROPE_TYPES:
        expected, got = f"rope_type {', '.join(ROPE_TYPES)}", rope
    if expected:
        raise ValueError(
            f"format: expected {expected} for GGUF, got {got}: export it without --format, and "
            "convert the folder with convert_hf_to_gguf.py of llama.cpp"
        )


def rope_parameters(config: PretrainedConfig) -> dict[str, Any]:
    """Return the type and settings of the rotary embedding."""
    parameters: dict[str, Any] = config.rope_parameters
    return parameters


def add_metadata(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    """Add the sizes and settings of a model to a file."""
    head_size = getattr(config, "head_dim", None)
    head_size = head_size or config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    context = config.max_position_embeddings
    # These architectures of llama.cpp attend to all tokens, which differs beyond a window.
    writer.add_context_length(min(context, window or context))
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = rope_parameters(config)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def tensor_names(config: PretrainedConfig) -> gguf.TensorNameMap:
    """Return the names of tensors in llama.cpp, by those in Transformers."""
    arch = gguf.MODEL_ARCH[ARCHITECTURES[config.model_type].name.upper()]
    return gguf.get_tensor_name_map(arch, config.num_hidden_layers)


def interleaved_heads(config: PretrainedConfig) -> dict[str, int]:
    """Return the layers whose rows are interleaved, with the number of heads of each."""
    if not ARCHITECTURES[config.model_type].interleaved:
        return {}
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}


def named_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor, int]]:
    """Yield the names of weights in llama.cpp, tied ones once, weights, and heads to interleave.

    The last is the number of heads for :func:`interleave_halves`, or 0 for a weight as it is.
    """
    config = model.config
    names, heads = tensor_names(config), interleaved_heads(config)
    if rope_parameters(config)["rope_type"] == "llama3":
        yield "rope_freqs.weight", _frequency_divisors(config), 0
    for name, weight in model.named_parameters():
        renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert renamed is not None, name
        yield renamed, weight, heads.get(name.split(".")[-2], 0)


def interleave_halves(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of queries or keys as llama.cpp rotates them.

    Of a head with d rows, Transformers rotates row i with row i + d/2, and llama.cpp row 2i with
    row 2i + 1.

    Args:
        weight: Weight or bias. Shape: (heads x d, ...).
        heads: Number of heads.

    >>> interleave_halves(torch.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    halves: Tensor = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)


def _frequency_divisors(config: PretrainedConfig) -> Tensor:
    """Return the divisors of the rotary frequencies in llama.cpp. Shape: (head size / 2,)."""
    device = torch.device("cpu")
    scaled: Tensor = ROPE_INIT_FUNCTIONS["llama3"](config, device)[0]
    exponents = torch.linspace(0, 1, len(scaled) + 1)[:-1]
    plain: Tensor = rope_parameters(config)["rope_theta"] ** -exponents
    return plain / scaled
