"""Write a model as a GGUF file, one tensor after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_entrodrop.commands.export.gguf_format.architectures import (
    ARCHITECTURES,
    add_metadata,
    check_architecture,
    interleave_halves,
    named_tensors,
)
from lit_entrodrop.commands.export.gguf_format.vocabulary import add_vocabulary, check_vocabulary
from lit_entrodrop.runtime.progress import track

Type = gguf.GGMLQuantizationType
# Type of the tensors, and of the file as a whole.
TYPES = {
    "float32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "float16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bfloat16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def check_gguf(config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model or tokenizer that cannot be written as GGUF.

    Raises:
        ValueError: If llama.cpp would compute or read text in another way.
    """
    check_architecture(config)
    check_vocabulary(tokenizer)


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    dtype: str,
) -> None:
    """Write a model and its tokenizer.

    Beside the model, only one tensor at a time is in memory. Vectors are written in fp32, and
    matrices whose rows do not fill blocks of Q8_0 in fp16, as llama.cpp does.

    Args:
        path: Path to the file.
        model: Model that :func:`check_gguf` accepts.
        tokenizer: Its tokenizer.
        stops: Tokens at which generation stops.
        dtype: Key of :data:`TYPES`.
    """
    config = model.config
    kind, file_type = TYPES[dtype]
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type].name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(path.stem)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_metadata(writer, config)
    add_vocabulary(writer, tokenizer, config.vocab_size, stops)
    write_tensors(writer, list(named_tensors(model)), kind)


def write_tensors(
    writer: gguf.GGUFWriter, tensors: Sequence[tuple[str, Tensor, int]], kind: Type
) -> None:
    """Write the header and all tensors, and close the file.

    Args:
        writer: The file, with all metadata.
        tensors: Name, weight and number of heads to interleave, 0 for none.
        kind: Type of matrices whose rows fill its blocks.
    """
    kinds = [_kind_of(weight, kind) for _, weight, _ in tensors]
    for (name, weight, _), each in zip(tensors, kinds, strict=True):
        block, bytes_of_block = gguf.GGML_QUANT_SIZES[each]
        size = weight.numel() // block * bytes_of_block
        # With a GGUF type given, gguf reads from NumPy's dtype only that the shape counts weights.
        writer.add_tensor_info(name, weight.shape, np.dtype(np.float32), size, each)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for (_, weight, heads), each in zip(
        track(tensors, "Writing GGUF", unit="tensors"), kinds, strict=True
    ):
        ordered = interleave_halves(weight, heads) if heads else weight
        values = ordered.detach().float().contiguous().numpy()
        writer.write_tensor_data(gguf.quants.quantize(values, each))
    writer.close()


def _kind_of(weight: Tensor, kind: Type) -> Type:
    if weight.dim() == 1:
        return Type.F32
    fills_blocks = weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    return kind if fills_blocks else Type.F16
