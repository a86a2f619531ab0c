"""Turn a checkpoint into a folder that plain Transformers opens."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_entrodrop.building import DType, LMConfig, LoRAConfig, prepare_causal_lm
from lit_entrodrop.checkpoints import read_checkpoint
from lit_entrodrop.pretrained import load_tokenizer

MODEL_PREFIX = "causal_lm."


def export(
    ckpt_path: str, output: str, merge_lora: bool = True, dtype: DType | None = None
) -> Path:
    """Write a checkpoint as a Hugging Face folder: safetensors, config and tokenizer.

    Args:
        ckpt_path: the ``.ckpt`` file, or the folder of shards.
        output: the folder to write; must not exist or be empty.
        merge_lora: merge LoRA adapters into the weights; otherwise write the adapters alone.
        dtype: dtype of the written weights; by default that of the checkpoint.

    Returns:
        The folder.

    Raises:
        ValueError: if the checkpoint is none of ours, or the folder holds something.
    """
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"output: expected a new or empty folder, got {folder}: choose another")
    checkpoint = read_checkpoint(Path(ckpt_path))
    lm = lm_config(checkpoint["lm"])
    model = restore_model(checkpoint, lm)
    if lm.lora is not None and merge_lora:
        model = cast(Any, model).merge_and_unload()
    if dtype is not None:
        model.to(getattr(torch, dtype))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A reader of the folder sees all of it or nothing.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        complete = Path(temporary) / "model"
        model.save_pretrained(complete)
        load_tokenizer(lm.tokenizer_source).save_pretrained(complete)
        complete.replace(folder)
    return folder


def lm_config(state: dict[str, Any]) -> LMConfig:
    """Rebuild the config that a checkpoint keeps as plain values."""
    lora = state["lora"]
    return LMConfig(**{**state, "lora": None if lora is None else LoRAConfig(**lora)})


def restore_model(checkpoint: dict[str, Any], lm: LMConfig) -> PreTrainedModel:
    """Build the model of a checkpoint around its weights, of which no copy is made."""
    hf_config = AutoConfig.for_model(**checkpoint["hf_config"])
    # What models compute when they are built, such as rotary frequencies, is in no checkpoint.
    with init_empty_weights(include_buffers=False):
        hf_model = AutoModelForCausalLM.from_config(hf_config, dtype=getattr(torch, lm.dtype))
        causal_lm = prepare_causal_lm(hf_model, lm)
    weights = {
        name.removeprefix(MODEL_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(MODEL_PREFIX)
    }
    causal_lm.load_state_dict(weights, assign=True)
    causal_lm.unwrapped.tie_weights()
    return cast(PreTrainedModel, causal_lm.hf_model.eval())
