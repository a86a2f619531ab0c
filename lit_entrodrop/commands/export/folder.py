"""Write the folder: weights, config, tokenizer and card, all of it or nothing."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from lit_entrodrop.commands.export.card import write_card
from lit_entrodrop.commands.export.weights import restore_model
from lit_entrodrop.model.config import DType, LMConfig
from lit_entrodrop.model.loading import load_tokenizer, locate, transformers_progress
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.training.provenance import public_name


def export(
    ckpt_path: str,
    output: str,
    merge_lora: bool = True,
    dtype: DType | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Write a checkpoint as a Hugging Face folder: safetensors, config, tokenizer, model card.

    Needs no GPU, and host memory for one copy of the weights (more for a mixture of experts). The
    checkpoint may be of any strategy; that of DeepSpeed is read without DeepSpeed.

    Args:
        ckpt_path: the ``.ckpt`` file, or the folder that FSDP or DeepSpeed wrote.
        output: the folder to write; must not exist or be empty.
        merge_lora: merge LoRA adapters into the weights; otherwise write the adapters alone, for
            peft to load beside the base model.
        dtype: dtype of the written weights; by default ``lm.dtype``, in which they were held.
        max_shard_size: weights that are larger are cut into several files of at most this size.

    Returns:
        The folder.

    Raises:
        ValueError: if the checkpoint is none of ours or damaged, or the folder holds something.
        OSError: if the folder cannot be written, as on a full disk; nothing is left of it.
    """
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"output: expected a new or empty folder, got {folder}: choose another")
    _check_size(max_shard_size)
    checkpoint = read_checkpoint(Path(ckpt_path))
    lm = LMConfig.from_dict(checkpoint["lm"])
    if dtype is not None and lm.lora is None:
        lm = replace(lm, dtype=dtype)
    tokenizer = load_tokenizer(lm.tokenizer_source)
    whole = lm.lora is None or merge_lora
    model = _whole_model(checkpoint, lm) if whole else _adapters(checkpoint, lm)
    if dtype is not None:
        # Adapters were merged in their own precision.
        cast(Any, model).to(getattr(torch, dtype))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A reader of the folder sees all of it or nothing.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        complete = Path(temporary) / "model"
        # peft would ask the hub whether the vocabulary has grown; it never has.
        options = {"max_shard_size": max_shard_size} if whole else {"save_embedding_layers": False}
        try:
            with transformers_progress():
                cast(Any, model).save_pretrained(complete, **options)
        except SafetensorError as error:
            raise OSError(f"output: cannot write {folder}: {error}") from error
        tokenizer.save_pretrained(complete)
        write_card(complete, folder.name, Path(ckpt_path), checkpoint, lm, adapters=not whole)
        _share(complete)
        complete.replace(folder)
    print(f"model: {folder}")
    return folder


def _share(folder: Path) -> None:
    # safetensors makes files that no one else may read, whatever the user's umask says.
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)


def _check_size(size: str) -> None:
    try:
        split_torch_state_dict_into_shards({}, max_shard_size=size)
    except ValueError as error:
        raise ValueError(
            f"max_shard_size: expected a size such as 5GB or 500MB, got {size!r}"
        ) from error


def _whole_model(checkpoint: dict[str, Any], lm: LMConfig) -> PreTrainedModel:
    causal_lm = restore_model(checkpoint, lm)
    model = causal_lm.hf_model
    if lm.lora is not None:
        model = cast(Any, model).merge_and_unload()
    model.generation_config = _generation_config(lm) or model.generation_config
    return model


def _adapters(checkpoint: dict[str, Any], lm: LMConfig) -> PreTrainedModel:
    model = restore_model(checkpoint, lm, wanted=lambda name: "lora_" in name).hf_model
    if lm.pretrained is not None:
        config = cast(Any, model).peft_config["default"]
        config.base_model_name_or_path = public_name(lm.pretrained)
    return model


def _generation_config(lm: LMConfig) -> GenerationConfig | None:
    """Return the base model's own, if it has one and is still where it was."""
    if lm.pretrained is None:
        return None
    try:
        return GenerationConfig.from_pretrained(locate(lm.pretrained).name)
    except (OSError, ValueError):
        return None
