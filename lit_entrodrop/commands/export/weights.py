"""The model of a checkpoint, around its weights, of which there is one copy at most."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lit_entrodrop.model.building import prepare_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig

PREFIX = "causal_lm."


def restore_model(
    checkpoint: dict[str, Any], lm: LMConfig, wanted: Callable[[str], bool] = lambda name: True
) -> CausalLM:
    """Build the model of a checkpoint and give it its weights, one by one.

    Args:
        checkpoint: what :func:`~lit_entrodrop.runs.checkpoints.reading.read_checkpoint` returned.
        lm: of the model.
        wanted: tells by its name whether a weight is needed; others stay without content.

    Returns:
        The model in eval mode, each weight in the dtype in which it was trained.

    Raises:
        ValueError: if the checkpoint lacks a wanted weight or has others than the model.
    """
    causal_lm = _build_empty(checkpoint["hf_config"], lm)
    weights: Mapping[str, Tensor] = checkpoint["state_dict"]
    _refuse_surplus(weights, causal_lm)
    for name, own in _own_tensors(causal_lm).items():
        if wanted(name):
            _put(causal_lm, name, _find(weights, name, own))
    causal_lm.unwrapped.tie_weights()
    return causal_lm.eval()


def _build_empty(hf_config: dict[str, Any], lm: LMConfig) -> CausalLM:
    config = AutoConfig.for_model(**hf_config)
    # What models compute when they are built, such as rotary frequencies, is in no checkpoint.
    with init_empty_weights(include_buffers=False):
        # A checkpoint must not choose an attention that Transformers would download.
        hf_model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, lm.dtype), attn_implementation="eager"
        )
        # Nothing is run.
        idle = replace(
            lm, head="naive", activation_checkpointing=False, compile=False, dropout=None
        )
        causal_lm = prepare_causal_lm(hf_model, idle)
    causal_lm.unwrapped.tie_weights()
    return causal_lm


def _own_tensors(causal_lm: CausalLM) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, tied ones once."""
    tensors = causal_lm.state_dict(keep_vars=True)
    # Of tied ones, the first name stays.
    once = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return {name: tensors[name] for name in once.values()}


def _refuse_surplus(weights: Mapping[str, Tensor], causal_lm: CausalLM) -> None:
    own = {PREFIX + name for name in causal_lm.state_dict()}
    if surplus := sorted(name for name in weights if name.startswith(PREFIX) and name not in own):
        raise ValueError(
            f"ckpt_path: expected the weights of {causal_lm.unwrapped.config.model_type}, got "
            f"{len(surplus)} others, the first {surplus[0]}: was it written with another version "
            "of Transformers?"
        )


def _find(weights: Mapping[str, Tensor], name: str, own: Tensor) -> Tensor:
    if PREFIX + name not in weights:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of the whole model, got one without {name}: if it "
            "holds adapters alone, export them by --merge_lora false"
        )
    weight = weights[PREFIX + name]
    if weight.shape != own.shape:
        raise ValueError(
            f"ckpt_path: expected {name} of shape {tuple(own.shape)}, got {tuple(weight.shape)}: "
            "was it written with another version of Transformers?"
        )
    return weight.to(own.dtype)


def _put(causal_lm: CausalLM, name: str, weight: Tensor) -> None:
    place, _, leaf = name.rpartition(".")
    module = causal_lm.get_submodule(place)
    module.load_state_dict({leaf: weight}, strict=False, assign=True)
