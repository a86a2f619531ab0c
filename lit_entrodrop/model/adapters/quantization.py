"""The 4-bit base model of QLoRA, by bitsandbytes (checked on 0.50)."""

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from lit_entrodrop.model.adapters.settings import QuantizeConfig

BLOCK = 64  # weights that share a scale


def loading_arguments(
    quantize: QuantizeConfig | None, config: PretrainedConfig, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the arguments with which Transformers quantizes a model that it loads.

    Raises:
        ValueError: If bitsandbytes is not installed, or the weights are quantized already.
    """
    if quantize is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "lm.quantize needs the package bitsandbytes: pip install 'lit-entrodrop[qlora]'"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            "its weights are quantized already, and lm.quantize needs original ones: name the "
            "model that they were made of, or remove lm.quantize"
        )
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize.quant_type,
        bnb_4bit_use_double_quant=quantize.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    # Always on the CPU, so that training and export round a weight to the same number.
    return {"quantization_config": settings, "device_map": {"": "cpu"}}


def prepare_quantized(hf_model: PreTrainedModel) -> None:
    """Check that quantized layers compute correctly on any device, and let them train on a CPU.

    Raises:
        ValueError: If a layer has a number of inputs that bitsandbytes does not support.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for name, module in hf_model.named_modules():
        if isinstance(module, Linear4bit):
            if module.in_features % BLOCK:
                # The CPU kernel, which exports too, takes the scales of other blocks.
                raise ValueError(
                    f"lm.quantize: expected layers of a multiple of {BLOCK} inputs, got "
                    f"{module.in_features} for {name}, which bitsandbytes dequantizes wrongly on a "
                    "CPU: remove lm.quantize"
                )
            # An evaluation on a CPU with AVX-512 BF16 would repack the weights to a format whose
            # forward pass has no gradient.
            module.support_avx512bf16_for_cpu = False


def save_trained_weights_only(module: nn.Module) -> None:
    """Leave frozen weights out of the state dict of a module; loading then keeps its own.

    bitsandbytes cannot load the state dict of a quantized layer, and the frozen weights are those
    of the base model.

    >>> layers = nn.Sequential(nn.Linear(1, 1).requires_grad_(False), nn.Linear(1, 1))
    >>> save_trained_weights_only(layers)
    >>> list(layers.state_dict()), layers.load_state_dict(layers.state_dict())
    (['1.weight', '1.bias'], <All keys matched successfully>)
    """

    def trained() -> set[str]:
        return {name for name, each in module.named_parameters() if each.requires_grad}

    def omit(_module: nn.Module, tensors: dict[str, Any], prefix: str, _metadata: Any) -> None:
        kept = trained()
        for name in [name for name in tensors if name.startswith(prefix)]:
            if name.removeprefix(prefix) not in kept:
                del tensors[name]

    def accept(_module: nn.Module, keys: Any) -> None:
        kept = tuple(trained())
        keys.missing_keys[:] = [name for name in keys.missing_keys if name.endswith(kept)]

    module.register_state_dict_post_hook(omit)
    module.register_load_state_dict_post_hook(accept)
