"""Model FLOPs per token, which define MFU, and peak operations per second of a device.

MFU is always ``tokens_per_second * training_flops_per_token / peak``: it counts the operations that
the method needs, without recomputation. A share that counts recomputation is called HFU, hardware
FLOPs utilization (PaLM, Chowdhery et al. 2022, appendix B).
"""

import re
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES
from lit_entrodrop.model.hardware import HARDWARE
from regularizers import Requirements

# Entries of Transformers' configurations: the experts of a layer, and those that a token uses.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
USED_EXPERTS = ("num_experts_per_tok", "top_k_experts", "moe_top_k", "moe_topk", "moe_k")
# Entries with the number of tokens that a layer of this kind attends to.
WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def training_flops_per_token(
    causal_lm: CausalLM, block_size: int, required: Requirements = NO_REQUIREMENTS
) -> float:
    """Return the operations of a training step for one token, its model FLOPs.

    6·N for N weights in matrix products, and three times the forward operations of causal
    attention. Of the 6·N, the forward pass takes 2·N, the gradient of activations 2·N, and the
    gradient of weights 2·N, only for trained weights. A second forward pass of a regularizer takes
    as much again; a pass without gradient takes its forward operations. A frozen reference or
    teacher counts as a model of the same size.

    Args:
        causal_lm: Model, which may be on the meta device.
        block_size: Number of tokens in a block, T, which counts as one document.
        required: Requirements of the regularizers.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1; Chowdhery et al. 2022 (arXiv
    2204.02311), appendix B.

    >>> from lit_entrodrop.model.building import build_on_meta
    >>> from lit_entrodrop.model.config import LMConfig
    >>> tiny = build_on_meta(LMConfig())
    >>> f"{training_flops_per_token(tiny, block_size=256) / 1e6:.1f} million"
    '13.6 million'
    """
    used, trained = used_weights(causal_lm)
    attention = attention_flops_per_token(causal_lm.unwrapped.config, block_size)
    with_gradient = 4 * used + 2 * trained + 3 * attention
    passes = 1 + required.second_forward
    return passes * with_gradient + required.frozen_passes * (2 * used + attention)


def used_weights(causal_lm: CausalLM) -> tuple[float, float]:
    """Count the weights that a token is multiplied by, and the trained ones among them.

    An embedding counts only if the head shares it. Of the experts of a layer, those count that the
    token uses.
    """
    model = causal_lm.unwrapped
    head = set(model.get_output_embeddings().parameters())
    looked_up = {
        weight
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    used = trained = 0.0
    for name, weight in causal_lm.named_parameters():
        # Neither norms nor biases, which may be stacked over experts, are factors of products.
        if weight.ndim < 2 or name.endswith("bias") or weight in looked_up - head:
            continue
        count = weight.numel() * _share_used(name, weight, model.config)
        used += count
        trained += count * weight.requires_grad
    return used, trained


def _share_used(name: str, weight: nn.Parameter, config: Any) -> float:
    config = config.get_text_config()
    # DBRX has a configuration of its own for these.
    places = config, getattr(config, "ffn_config", None)
    experts = _first(places, EXPERTS)
    stacked = weight.ndim == 3 and weight.shape[0] == experts
    if experts is None or not (stacked or "experts" in name.split(".")):
        return 1.0
    used = _first(places, USED_EXPERTS)
    return 1.0 if used is None else used / experts


def _first(places: tuple[Any, ...], names: tuple[str, ...]) -> int | None:
    values = (getattr(place, name, None) for place in places for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def attention_flops_per_token(config: Any, block_size: int) -> float:
    """Return the forward operations of causal attention for one token, apart from projections.

    The products of queries with keys and of probabilities with values take 2 operations for each
    element of a head and each of the T/2 preceding tokens, on average. Linear attention and
    recurrent layers count as 0.

    Args:
        config: Configuration of Transformers.
        block_size: Number of tokens in a block, T.

    >>> from transformers import LlamaConfig
    >>> small = LlamaConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=2)
    >>> attention_flops_per_token(small, block_size=128) == 2 * 128 * 2 * 64
    True
    """
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        return 0.0
    head_dim = getattr(config, "head_dim", None) or getattr(config, "dim_head", None)
    value_dim = head_dim or config.hidden_size // heads
    query_dim = getattr(config, "qk_head_dim", None) or value_dim
    value_dim = getattr(config, "v_head_dim", None) or value_dim
    whole = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
    kinds = getattr(config, "layer_types", None) or [whole] * config.num_hidden_layers
    keys = sum(_mean_keys(config, kind, block_size) for kind in kinds)
    return float(2 * keys * heads * (query_dim + value_dim))


def _mean_keys(config: Any, kind: str, block_size: int) -> float:
    # A hybrid layer has attention too.
    if kind.startswith("linear") or not ("attention" in kind or kind == "hybrid"):
        return 0.0
    window = getattr(config, WINDOWS.get(kind, ""), None) or block_size
    window = min(window, block_size)
    if kind == "chunked_attention":
        return window / 2
    # The first tokens of a block have fewer keys than the window.
    return window - window**2 / (2 * block_size)


def peak_flops(device: torch.device, precision: str, dtype: str = "float32") -> float | None:
    """Return the peak of a device in dense operations per second, or None if it is unknown.

    Args:
        device: The device.
        precision: Value of ``trainer.precision``.
        dtype: Data type of the weights, in which ``32-true`` computes.

    >>> peak_flops(torch.device("cpu"), "bf16-mixed") is None
    True
    """
    if device.type == "cpu":
        return None
    computed = AUTOCAST_DTYPES.get(precision) or getattr(torch, dtype)
    if device.type != "cuda":
        return get_available_flops(device, computed)
    name = torch.cuda.get_device_name(device)
    if computed.itemsize == 2:
        # Lightning 2.6 counts sparsity for some GPUs, and half of the peak for others.
        return peak_of(name)
    # It also takes an L40S for an L4, and an H100 NVL for two.
    wrong = _words(name) & {"laptop", "nvl", "l40s"}
    return None if wrong else get_available_flops(device, computed)


def peak_of(device_name: str) -> float | None:
    """Return the peak of a GPU in dense bf16 operations per second, or None if it is unknown.

    >>> peak_of("NVIDIA H200") / 1e12
    989.0
    >>> peak_of("NVIDIA H100 PCIe") is None
    True
    """
    words = _words(device_name)
    # These variants run at lower clocks than the GPU of the same name.
    if words & {"laptop", "nvl"} or {"h100", "pcie"} <= words:
        return None
    fitting = (each for name, each in HARDWARE.items() if set(name.split("-")) <= words)
    return next((hardware.peak_flops for hardware in fitting), None)


def _words(device_name: str) -> set[str]:
    return set(re.split(r"[\s-]+", device_name.lower().replace("rtx ", "rtx")))
