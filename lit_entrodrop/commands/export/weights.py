"""Model of a checkpoint, built around at most one copy of its weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lit_entrodrop.model.building import prepare_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runtime.progress import track

PREFIX = "causal_lm."


def restore_model(checkpoint: dict[str, Any], lm: LMConfig, trained_only: bool = False) -> CausalLM:
    """Build the model of a checkpoint in eval mode and load its weights one by one.

    Each weight has the dtype in which it was trained. With ``trained_only``, the frozen weights
    around adapters stay on the meta device.

    Raises:
        ValueError: If the checkpoint lacks a weight or has weights that the model lacks.
    """
    causal_lm = _build_empty(checkpoint["hf_config"], lm)
    weights: Mapping[str, Tensor] = checkpoint["state_dict"]
    _refuse_surplus(weights, causal_lm)
    tensors = _own_tensors(causal_lm)
    for name, own in track(tensors.items(), "Restoring weights", unit="tensors"):
        if own.requires_grad or not trained_only:
            place, _, leaf = name.rpartition(".")
            weight = {leaf: _find(weights, name, own)}
            causal_lm.get_submodule(place).load_state_dict(weight, strict=False, assign=True)
    causal_lm.unwrapped.tie_weights()
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
        # The model is never run.
        idle = replace(
            lm, head="naive", activation_checkpointing=False, compile=False, dropout=None
        )
        causal_lm = prepare_causal_lm(hf_model, idle)
    causal_lm.unwrapped.tie_weights()
    return causal_lm


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
