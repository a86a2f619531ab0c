"""LoRA adapters alone as a GGUF file, for `llama-cli --lora` and `ADAPTER` of a Modelfile."""

import re
from pathlib import Path
from typing import Any

import gguf

from lit_entrodrop.commands.export.gguf_format.architectures import (
    ARCHITECTURES,
    interleaved_heads,
    tensor_names,
)
from lit_entrodrop.commands.export.gguf_format.writing import TYPES, write_tensors

_LORA = re.compile(r"(.+)\.lora_([AB])\.default\.weight")


def check_adapters(model: Any) -> None:
    """Refuse adapters if llama.cpp would ignore a part of them.

    Args:
        model: Model of peft.

    Raises:
        ValueError: If more is trained than the matrices A and B of linear layers.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad and not _LORA.fullmatch(name):
            raise ValueError(
                f"format: expected only matrices A and B of LoRA for GGUF, got {name}: export the "
                "merged model, with --merge_lora true"
            )


def write_adapters(path: Path, model: Any, dtype: str) -> None:
    """Write the adapters of a model.

    Args:
        path: Path to the file.
        model: Model of peft that :func:`check_adapters` accepts.
        dtype: Key of :data:`TYPES`.
    """
    config = model.config
    kind, file_type = TYPES[dtype]
    names, heads = tensor_names(config), interleaved_heads(config)
    tensors, alphas = [], set()
    for name, weight in model.base_model.model.named_parameters():
        if not (match := _LORA.fullmatch(name)):
            continue
        module, matrix = match.groups()
        renamed = names.get_name(module)
        assert renamed is not None, name
        # Only the rows of B are outputs of the layer.
        order = heads.get(module.split(".")[-1], 0) if matrix == "B" else 0
        tensors.append((f"{renamed}.weight.lora_{matrix.lower()}", weight, order))
        layer = model.base_model.model.get_submodule(module)
        # llama.cpp divides alpha by the rank, whatever rule peft scales by.
        alphas.add(layer.scaling["default"] * layer.r["default"])
    (alpha,) = alphas
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type].name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(path.stem)
    writer.add_file_type(file_type)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    write_tensors(writer, tensors, kind)
