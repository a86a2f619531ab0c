"""Model of a checkpoint, built around at most one copy of its weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from lit_entrodrop.model.building import load_dequantized, prepare_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runtime.progress import track

PREFIX = "causal_lm."


def restore_model(checkpoint: dict[str, Any], lm: LMConfig, trained_only: bool = False) -> CausalLM:
    """Build the model of a checkpoint in eval mode and load its weights one by one.

    Each weight has the dtype in which it was trained. With ``trained_only``, the frozen weights
    around adapters stay on the meta device. Quantized weights are read from the base model and
    dequantized, as adapters were trained to correct the numbers that training computed with.

    Raises:
        ValueError: If the checkpoint lacks a weight or has weights that the model lacks.
    """
    in_checkpoint = lm.quantize is None and not trained_only
    if lm.quantize is None or trained_only:
        causal_lm = _build_empty(checkpoint["hf_config"], lm)
    else:
        causal_lm = prepare_causal_lm(load_dequantized(lm), _idle(lm))
    weights: Mapping[str, Tensor] = checkpoint["state_dict"]
    _refuse_surplus(weights, causal_lm)
    tensors = _own_tensors(causal_lm)
    for name, own in track(tensors.items(), "Restoring weights", unit="tensors"):
        if own.requires_grad or in_checkpoint:
            # In place, so that tied weights stay tied.
            weight = _find(weights, name, own)
            if isinstance(own, nn.Parameter):
                weight = nn.Parameter(weight, own.requires_grad)
            torch.utils.swap_tensors(own, weight)
    return causal_lm.eval()


def _build_empty(hf_config: dict[str, Any], lm: LMConfig) -> CausalLM:
    config = AutoConfig.for_model(**hf_config)
    # Checkpoints do not contain the buffers computed at build time, such as rotary frequencies.
    with init_empty_weights(include_buffers=False):
        # A checkpoint must not choose an attention that Transformers would download.
        hf_model = AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, lm.dtype),
            attn_implementation="eager",
            trust_remote_code=False,
        )
    # The context above gives each module parameters of its own, which would untie them.
    hf_model.tie_weights()
    with torch.device("meta"):
        return prepare_causal_lm(hf_model, _idle(lm))


def _idle(lm: LMConfig) -> LMConfig:
    """Return the config of a model that is never run."""
    return replace(lm, head="naive", activation_checkpointing=False, compile=False, dropout=None)


def _own_tensors(causal_lm: CausalLM) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, tied ones only once."""
    tensors = causal_lm.state_dict(keep_vars=True)
    # Tied tensors keep their first name.
    once = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return {name: tensors[name] for name in once.values()}


def _refuse_surplus(weights: Mapping[str, Tensor], causal_lm: CausalLM) -> None:
    own = {PREFIX + name for name in causal_lm.state_dict()}
    if surplus := sorted(name for name in weights if name.startswith(PREFIX) and name not in own):
        raise ValueError(
            f"ckpt_path: expected the weights of {causal_lm.unwrapped.config.model_type}, got "
            f"{len(surplus)} others, the first {surplus[0]}: export it with the version of "
            "Transformers that wrote it"
        )


def _find(weights: Mapping[str, Tensor], name: str, own: Tensor) -> Tensor:
    if PREFIX + name not in weights:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of the whole model, got one without {name}: if it "
            "contains only adapters, export them with --merge_lora false"
        )
    weight = weights[PREFIX + name]
    if weight.shape != own.shape:
        raise ValueError(
            f"ckpt_path: expected {name} of shape {tuple(own.shape)}, got {tuple(weight.shape)}: "
            "export it with the version of Transformers that wrote it"
        )
    return weight.to(own.dtype)
