"""`lit-entrodrop export`: convert a checkpoint to a Hugging Face model folder."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from lightning import LightningDataModule
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from lit_entrodrop.cli.parsing import call_with
from lit_entrodrop.commands.export.card import write_card
from lit_entrodrop.commands.export.soup import list_in_one, read_mean
from lit_entrodrop.commands.export.weights import restore_model
from lit_entrodrop.data.chats.stopping import stop_tokens
from lit_entrodrop.data.chats.template import set_chat_template
from lit_entrodrop.model.adapters.lora import merge_lora
from lit_entrodrop.model.config import DType, LMConfig
from lit_entrodrop.model.loading import load_tokenizer, locate
from lit_entrodrop.model.transformers_compat import transformers_progress
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runs.writing import draft
from lit_entrodrop.training.provenance import public_name


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    print(f"model: {call_with(export, 'export', list_in_one(arguments))}")


def export(
    ckpt_path: str,
    output: str,
    merge_lora: bool = True,
    dtype: DType | None = None,
    max_shard_size: str = "5GB",
    weights: Weights = "best",
    average: list[str] | None = None,
    greedy: bool = False,
) -> Path:
    """Convert a checkpoint to a Hugging Face folder: safetensors, config, tokenizer, model card.

    Needs no GPU, and host memory for one copy of the weights (more for a mixture of experts). The
    checkpoint may be of any strategy; DeepSpeed need not be installed to read its checkpoints.

    Args:
        ckpt_path: Path to the ``.ckpt`` file, or to the folder that FSDP or DeepSpeed wrote.
        output: Path to the output folder, which must be new or empty.
        merge_lora: Whether to merge LoRA adapters into the weights. Otherwise only the adapters are
            written, for peft to load together with the base model.
        dtype: Dtype of the written weights. Default: ``lm.dtype``, in which they were stored.
        max_shard_size: Maximum size of a file; larger weights are split into several files.

        weights: Which weights of a run with `model.average`: the averaged or the raw ones, or
            `best` for those with the better last evaluation.
        average: Paths to further checkpoints of the same model. The mean of all weights is written;
            `--average A B C` without `--ckpt_path` names all of them.
        greedy: Whether to start from the checkpoint with the lowest validation loss, and to include
            another one only if the loss of the mean does not rise. Reads the text of the run.

    Returns:
        The folder.

    Raises:
        ValueError: If the checkpoint is damaged or was not written by `fit`, or the folder is not
            empty.
        WriteError: If the disk is full or read-only. No partial folder is left.
    """
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"output: expected a new or empty folder, got {folder}: choose another")
    _check_size(max_shard_size)
    paths = [Path(each) for each in (ckpt_path, *(average or []))]
    checkpoint, paths = read_mean(paths, weights, greedy)
    lm = LMConfig.from_dict(checkpoint["lm"])
    if dtype is not None and lm.lora is None:
        lm = replace(lm, dtype=dtype)
    tokenizer = load_tokenizer(lm.tokenizer_source, lm.add_tokens)
    data = checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    set_chat_template(tokenizer, data.get("chat_template"))
    whole = lm.lora is None or merge_lora
    model = _whole_model(checkpoint, lm) if whole else _adapters(checkpoint, lm)
    if dtype is not None:
        # After merging, which is done in the precision of the adapters.
        cast(Any, model).to(getattr(torch, dtype))
    options: dict[str, Any] = {"max_shard_size": max_shard_size}
    if not whole:
        # By default, peft asks the hub whether the vocabulary was extended.
        options = {"save_embedding_layers": bool(lm.add_tokens)}
    with draft(folder, _size(model)) as unfinished:
        try:
            with transformers_progress():
                cast(Any, model).save_pretrained(unfinished, **options)
        except SafetensorError as error:
            # As other libraries report a full disk.
            raise OSError(str(error)) from error
        tokenizer.save_pretrained(unfinished)
        generation_config = _generation_config(lm, model, stop_tokens(tokenizer))
        generation_config.save_pretrained(unfinished)
        write_card(unfinished, folder.name, paths, checkpoint, lm, adapters=not whole)
        _share(unfinished)
    return folder


def _size(model: PreTrainedModel) -> int:
    """Return the bytes of the weights that are in memory; others are not written."""
    return sum(weight.nbytes for weight in cast(Any, model).parameters() if not weight.is_meta)


def _share(folder: Path) -> None:
    # safetensors ignores the umask and makes files that no other user can read.
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
        model = merge_lora(model)
    return model


def _adapters(checkpoint: dict[str, Any], lm: LMConfig) -> PreTrainedModel:
    if lm.lora is not None and lm.lora.init == "pissa_niter_16":
        raise ValueError(
            "merge_lora: expected true for adapters of init pissa_niter_16, which are random, so "
            "that peft cannot compute their start from the base model again, got false: merge "
            "them, or train with init pissa"
        )
    model = restore_model(checkpoint, lm, trained_only=True).hf_model
    if lm.pretrained is not None:
        config = cast(Any, model).peft_config["default"]
        config.base_model_name_or_path = public_name(lm.pretrained)
    return model


def _generation_config(lm: LMConfig, model: Any, stop: Sequence[int]) -> GenerationConfig:
    """Return the generation config of the base model, if it has one, with more stop tokens."""
    config: GenerationConfig = model.generation_config
    if lm.pretrained is not None:
        with suppress(OSError, ValueError):
            config = GenerationConfig.from_pretrained(locate(lm.pretrained).name)
    of_base = config.eos_token_id
    known = of_base if isinstance(of_base, list) else [of_base]
    stops = [token for token in dict.fromkeys([*known, *stop]) if token is not None]
    config.eos_token_id = stops if len(stops) > 1 else stops[0]
    return config
