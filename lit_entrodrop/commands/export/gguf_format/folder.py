"""Folder with a GGUF file and what runs it."""

from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from lit_entrodrop.commands.export.gguf_format.adapters import check_adapters, write_adapters
from lit_entrodrop.commands.export.gguf_format.modelfile import modelfile
from lit_entrodrop.commands.export.gguf_format.writing import TYPES, write_gguf


def write_gguf_folder(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    generation: GenerationConfig,
    dtype: str,
    adapters: bool,
) -> str:
    """Write a model with a Modelfile, or only its adapters, and return the name of the GGUF file.

    The name ends with the type, by which the hub lists the files of a repository.

    Args:
        folder: Path to the new folder, whose name is that of the model.
        model: The model; one of peft for adapters.
        tokenizer: Its tokenizer.
        generation: Its generation config, with stop tokens.
        dtype: Key of :data:`TYPES`.
        adapters: Whether to write only adapters.

    Raises:
        ValueError: If llama.cpp would ignore a part of the adapters.
    """
    name = f"{folder.name}-{TYPES[dtype][0].name}{'-LoRA' if adapters else ''}.gguf"
    if adapters:
        check_adapters(model)
    folder.mkdir()
    if adapters:
        write_adapters(folder / name, model, dtype)
        return name
    stops = generation.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    write_gguf(folder / name, model, tokenizer, stops, dtype)
    text = modelfile(name, tokenizer, generation, stops)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return name
