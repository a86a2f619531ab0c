"""`lit-entrodrop export`: convert a checkpoint to a Hugging Face folder or a GGUF file."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning import LightningDataModule
from transformers import AutoConfig, PreTrainedModel

from lit_entrodrop.cli.parsing import call_with
from lit_entrodrop.commands.export.card import write_card
from lit_entrodrop.commands.export.generation import generation_config
from lit_entrodrop.commands.export.hub import check_access, check_repository, describe_push, push
from lit_entrodrop.commands.export.pretrained_folder import check_size, save_model
from lit_entrodrop.commands.export.soup import list_in_one, read_mean
from lit_entrodrop.commands.export.weights import restore_model
from lit_entrodrop.data.chats.stopping import stop_tokens
from lit_entrodrop.data.chats.template import set_chat_template
from lit_entrodrop.model.adapters.lora import merge_lora
from lit_entrodrop.model.config import DType, LMConfig
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.writing import draft
from lit_entrodrop.training.provenance import public_name

Format = Literal["transformers", "gguf"]


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    model = call_with(export, "export", list_in_one(arguments))
    print(f"model: {model}\nuse: {model}/README.md shows how to load it and generate")


def export(
    ckpt_path: str,
    output: str,
    merge_lora: bool = True,
    dtype: DType | Literal["q8_0"] | None = None,
    max_shard_size: str = "5GB",
    weights: Weights = "best",
    average: list[str] | None = None,
    greedy: bool = False,
    format: Format = "transformers",
    push_to: str | None = None,
    private: bool = True,
    dry_run: bool = False,
) -> Path:
    """Convert a checkpoint to a Hugging Face folder, or to a GGUF file for llama.cpp and Ollama.

    Needs no GPU, and host memory for one copy of the weights (more for a mixture of experts). The
    checkpoint may be of any strategy; DeepSpeed need not be installed to read its checkpoints.

    Args:
        ckpt_path: Path to the ``.ckpt`` file, or to the folder that FSDP or DeepSpeed wrote.
        output: Path to the output folder, which must be new or empty.
        merge_lora: Whether to merge LoRA adapters into the weights. Otherwise only the adapters are
            written, for peft, or as GGUF for llama.cpp, to load together with the base model.
        dtype: Dtype of the written weights. Default: ``lm.dtype``, in which they were stored.
            ``q8_0`` (8 bits, GGUF only) needs about half the space of ``bfloat16``.
        max_shard_size: Maximum size of a file; larger weights are split into several files.
        weights: Which weights of a run with `model.average`: the averaged or the raw ones, or
            `best` for those with the better last evaluation.
        average: Paths to further checkpoints of the same model, the mean of whose weights is
            written. `--average A B C` without `--ckpt_path` names all of them.
        greedy: Whether to start the mean from the checkpoint with the lowest validation loss, and
            to include another one only if its loss does not rise. Reads the text of the run.
        format: ``transformers`` (safetensors, config, tokenizer) or ``gguf`` (one file, and a
            Modelfile for Ollama; Llama, Mistral, Qwen2 and Qwen3). Both have a model card.
        push_to: Repository on the hub, ``owner/name``, to which the folder is uploaded; null for
            none.
        private: Whether the repository is private, if the upload creates it.
        dry_run: Whether to list what ``push_to`` would upload instead of uploading it.

    Returns:
        The folder.

    Raises:
        ValueError: If the checkpoint is damaged or was not written by `fit`, the folder is not
            empty, GGUF cannot represent the model, or the hub refuses the upload.
        WriteError: If the disk is full or read-only. No partial folder is left.
    """
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"output: expected a new or empty folder, got {folder}: choose another")
    check_size(max_shard_size)
    _check_options(format, dtype, average, push_to, dry_run)
    paths = [Path(each) for each in (ckpt_path, *(average or []))]
    checkpoint = read_checkpoint(paths[0])
    lm = LMConfig.from_dict(checkpoint["lm"])
    tokenizer = load_tokenizer(lm.tokenizer_source, lm.add_tokens)
    data = checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    set_chat_template(tokenizer, data.get("chat_template"))
    if format == "gguf":
        # An optional dependency.
        from lit_entrodrop.commands.export.gguf_format.folder import write_gguf_folder
        from lit_entrodrop.commands.export.gguf_format.writing import check_gguf

        check_gguf(AutoConfig.for_model(**checkpoint["hf_config"]), tokenizer)
    checkpoint, paths = read_mean(paths, weights, greedy)
    whole = lm.lora is None or merge_lora
    model = _model(checkpoint, lm, whole, None if dtype == "q8_0" else dtype)
    with draft(folder, None if dtype == "q8_0" else _size(model)) as unfinished:
        generation = generation_config(lm, model, stop_tokens(tokenizer))
        file = None
        if format == "gguf":
            file = write_gguf_folder(
                unfinished, model, tokenizer, generation, dtype or lm.dtype, adapters=not whole
            )
        else:
            # By default, peft asks the hub whether the vocabulary was extended.
            added = {"save_embedding_layers": bool(lm.add_tokens)}
            save_model(unfinished, model, **{"max_shard_size": max_shard_size} if whole else added)
            tokenizer.save_pretrained(unfinished)
            generation.save_pretrained(unfinished)
        write_card(unfinished, folder.name, paths, checkpoint, lm, not whole, file)
        _apply_umask(unfinished)
    if push_to is not None and dry_run:
        print(describe_push(folder, push_to, private))
    elif push_to is not None:
        print(f"uploaded: {push(folder, push_to, private)}")
    return folder


def _check_options(
    format: Format,
    dtype: str | None,
    average: list[str] | None,
    push_to: str | None,
    dry_run: bool,
) -> None:
    """Refuse options that do not belong together, and uploads that would fail at the end."""
    if average is not None and not average:
        raise ValueError(
            "average: expected paths to checkpoints, got none: name some, or remove --average"
        )
    if format == "gguf" and find_spec("gguf") is None:
        raise ValueError(
            "format: expected the package gguf, found none: pip install 'lit-entrodrop[gguf]'"
        )
    if format != "gguf" and dtype == "q8_0":
        raise ValueError("dtype: expected a dtype of PyTorch, got q8_0: add --format gguf")
    if push_to is None and dry_run:
        raise ValueError("dry_run: expected push_to, got none: name the repository")
    if push_to is not None:
        check_repository(push_to)
        if not dry_run:
            check_access(push_to)


def _model(
    checkpoint: dict[str, Any], lm: LMConfig, whole: bool, dtype: DType | None
) -> PreTrainedModel:
    """Return the model with adapters merged, or the model around the adapters alone."""
    if dtype is not None and lm.lora is None:
        lm = replace(lm, dtype=dtype)
    model = _whole_model(checkpoint, lm) if whole else _adapters(checkpoint, lm)
    if dtype is not None:
        # After merging, which is done in the precision of the adapters.
        cast(Any, model).to(getattr(torch, dtype))
    return model


def _size(model: PreTrainedModel) -> int:
    """Return the bytes of the weights that are in memory; others are not written."""
    return sum(weight.nbytes for weight in cast(Any, model).parameters() if not weight.is_meta)


def _apply_umask(folder: Path) -> None:
    # safetensors ignores it and makes files that no other user can read.
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)


def _whole_model(checkpoint: dict[str, Any], lm: LMConfig) -> PreTrainedModel:
    model = restore_model(checkpoint, lm).hf_model
    return model if lm.lora is None else merge_lora(model)


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
