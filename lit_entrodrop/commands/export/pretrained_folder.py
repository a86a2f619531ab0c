"""A folder that plain Transformers or peft loads."""

from pathlib import Path
from typing import Any, cast

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from transformers import PreTrainedModel

from lit_entrodrop.model.transformers_compat import transformers_progress


def check_size(size: str) -> None:
    """Refuse a text that does not state a size.

    Raises:
        ValueError: If it is none.
    """
    try:
        split_torch_state_dict_into_shards({}, max_shard_size=size)
    except ValueError as error:
        raise ValueError(
            f"max_shard_size: expected a size such as 5GB or 500MB, got {size!r}"
        ) from error


def save_model(folder: Path, model: PreTrainedModel, **options: Any) -> None:
    """Write weights and config of a model or of its adapters.

    Raises:
        OSError: If the disk is full.
    """
    try:
        with transformers_progress():
            cast(Any, model).save_pretrained(folder, **options)
    except SafetensorError as error:
        # As other libraries report a full disk.
        raise OSError(str(error)) from error
