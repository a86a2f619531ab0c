"""Read checkpoints of any strategy, without running code that a pickle may hold."""

import io
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights
from lit_entrodrop.runs.checkpoints.zero import is_zero_folder, read_rank_files, read_zero_folder
from lit_entrodrop.runtime.sharding import unsharded_shape

# The names that Lightning gives them.
METADATA, WEIGHTS, FSDP1_WEIGHTS = "meta.pt", "state_dict.", "model."
OWN_KEYS = {"lm", "hf_config", "state_dict"}
# Strategies of which each rank holds everything write the same.
WHOLE = {"SingleDeviceStrategy", "DDPStrategy"}
_TABLE = "torch.distributed.checkpoint.metadata"
# Whole names alone: a module's own imports would lead to anything.
KNOWN_TYPES = {
    (_TABLE, "Metadata"),
    (_TABLE, "MetadataIndex"),
    (_TABLE, "BytesStorageMetadata"),
    (_TABLE, "TensorStorageMetadata"),
    (_TABLE, "ChunkStorageMetadata"),
    (_TABLE, "TensorProperties"),
    (_TABLE, "StorageMeta"),
    (_TABLE, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project: a file, or a folder of shards; no optimizer of the latter.

    Args:
        path: a file, or the folder that FSDP2 or DeepSpeed ZeRO-1, ZeRO-2 or ZeRO-3 wrote.

    Returns:
        What it holds; the weights, under ``state_dict``, stay in its files until they are used.

    Raises:
        ValueError: if the path is missing, damaged, or no checkpoint of ours.
    """
    if is_zero_folder(path):
        return _require_ours(read_zero_folder(path), path)
    try:
        checkpoint = _read_shards(path) if path.is_dir() else _load(path)
    except UnsupportedShardsError:
        raise
    except Exception as error:
        # The message of torch.load would advise to run the code that a pickle may hold.
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {path}, which cannot be read "
            f"({type(error).__name__})"
        ) from error
    return _require_ours(checkpoint, path)


def read_all(path: Path) -> dict[str, Any]:
    """Read all that a checkpoint of this project holds, the state of the optimizer included.

    Args:
        path: as for :func:`read_checkpoint`.

    Returns:
        What it holds, nested as it was written; the tensors of a folder of shards stay in its files
        until they are used. Of DeepSpeed ZeRO, what each rank has written, by the file's name.

    Raises:
        ValueError: if the path is missing, damaged, or no checkpoint of ours.
    """
    checkpoint = read_checkpoint(path)
    if is_zero_folder(path):
        return read_rank_files(path)
    if not path.is_dir():
        return checkpoint
    reader = SafeReader(path)
    tensors, sizes, values = {}, {}, {}
    for name, item in reader.read_metadata().state_dict_metadata.items():
        if isinstance(item, TensorStorageMetadata):
            tensors[name] = partial(_read_weight, reader, name, item)
            sizes[name] = item.size
        elif isinstance(item, BytesStorageMetadata):
            values[name] = _read_value(path, reader.read_metadata(), name)
    return {**checkpoint, "state_dict": LazyWeights(tensors, sizes), "values": values}


def check_same_model(own: Mapping[str, torch.Size], kept: Mapping[str, torch.Size]) -> None:
    """Refuse the weights of another model.

    Args:
        own: shapes of the tensors of the configured model, by name.
        kept: those of the checkpoint.

    Raises:
        ValueError: if a name or a shape differs.
    """
    if unlike := sorted(name for name in own.keys() | kept if own.get(name) != kept.get(name)):
        raise ValueError(
            "ckpt_path: expected a checkpoint of the configured model, got one that differs in "
            f"{len(unlike)} tensors, the first {unlike[0]}: name the model that was trained"
        )


def check_same_strategy(own: str, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume from what another strategy wrote, as its optimizer is laid out otherwise.

    Args:
        own: class name of the strategy of the run.
        checkpoint: what it holds, as of :func:`read_checkpoint`.
        path: of the checkpoint.

    Raises:
        ValueError: naming both strategies.
    """
    wrote = checkpoint["provenance"]["trainer"]["strategy"]
    if own != wrote and not {own, wrote} <= WHOLE:
        raise ValueError(
            f"ckpt_path: expected a checkpoint that {own} wrote, got {path}, which {wrote} wrote: "
            "resume with that strategy, or start a new run from the exported model"
        )


def shapes(state_dict: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of the tensors of a state dict, by name; whole ones of what is sharded."""
    if isinstance(state_dict, LazyWeights):
        return state_dict.shapes
    return {name: unsharded_shape(tensor) for name, tensor in state_dict.items()}


def sharded_shapes(folder: Path) -> dict[str, torch.Size]:
    """Return the shapes of the weights in a folder of shards, by name.

    Raises:
        ValueError: if the folder holds no shards, or its table of contents holds code.
    """
    try:
        weights = _list_weights(SafeReader(folder))
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"ckpt_path: expected a folder of shards written by `fit`, got {folder}: {error}"
        ) from error
    return {_own_name(name): item.size for name, item in weights.items()}


class UnsupportedShardsError(ValueError):
    """A folder of shards that is damaged, or that another kind of strategy wrote."""


class SafeReader(FileSystemReader):
    """PyTorch's reader of a folder of shards, whose table of contents may only name known types."""

    _contents: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the table of contents, which is read once."""
        if self._contents is None:
            with self.fs.create_stream(self.fs.concat_path(self.path, ".metadata"), "rb") as file:
                _KnownTypesOnly(file).load()
            self._contents = super().read_metadata(*args, **kwargs)
        return self._contents


class _KnownTypesOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in KNOWN_TYPES or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its table of contents asks for {module}.{name}")


def _require_ours(checkpoint: Any, path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = checkpoint if isinstance(checkpoint, dict) else {}
    if not all(isinstance(kept.get(name), Mapping) for name in OWN_KEYS):
        raise ValueError(f"ckpt_path: expected a checkpoint written by `fit`, got {path}")
    return kept


def _load(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _read_shards(folder: Path) -> dict[str, Any]:
    checkpoint = _load(folder / METADATA)
    reader = SafeReader(folder)
    _require_whole_files(folder, reader.read_metadata())
    weights = _list_weights(reader)
    readers = {
        _own_name(name): partial(_read_weight, reader, name, item) for name, item in weights.items()
    }
    sizes = {_own_name(name): item.size for name, item in weights.items()}
    return {**checkpoint, "state_dict": LazyWeights(readers, sizes)}


def _require_whole_files(folder: Path, contents: Metadata) -> None:
    sizes: dict[str, int] = {}
    for part in (contents.storage_data or {}).values():
        end = part.offset + part.length
        sizes[part.relative_path] = max(sizes.get(part.relative_path, 0), end)
    for name, size in sorted(sizes.items()):
        file = folder / name
        if not file.exists():
            raise UnsupportedShardsError(
                f"ckpt_path: found no {file}, a shard of the checkpoint: copy the whole folder"
            )
        if file.stat().st_size < size:
            raise UnsupportedShardsError(
                f"ckpt_path: expected a shard of {size} bytes, got {file} of "
                f"{file.stat().st_size}, which is cut short: copy it again"
            )


def _read_weight(reader: SafeReader, name: str, item: TensorStorageMetadata) -> Tensor:
    weight = torch.empty(item.size, dtype=item.properties.dtype)
    load_shards({name: weight}, storage_reader=reader, no_dist=True)
    return weight


def _read_value(folder: Path, contents: Metadata, name: str) -> Any:
    # PyTorch's own reader would unpickle it.
    place = contents.storage_data[MetadataIndex(name)]
    with (folder / place.relative_path).open("rb") as file:
        file.seek(place.offset)
        content = io.BytesIO(file.read(place.length))
    try:
        return torch.load(content, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {folder}, whose {name} cannot "
            f"be read ({type(error).__name__})"
        ) from error


def _list_weights(reader: SafeReader) -> dict[str, TensorStorageMetadata]:
    items = reader.read_metadata().state_dict_metadata
    if any(name.startswith(FSDP1_WEIGHTS) for name in items):
        raise UnsupportedShardsError(
            f"ckpt_path: expected a checkpoint of FSDP2 or DeepSpeed, got {reader.path}, which "
            "FSDP1 wrote: FSDP1 is not supported; export it with the version that wrote it, and "
            "start a new run from the exported model"
        )
    return {
        name: item
        for name, item in items.items()
        if name.startswith(WEIGHTS) and isinstance(item, TensorStorageMetadata)
    }


def _own_name(name: str) -> str:
    _, _, own = name.partition(".")
    return own
