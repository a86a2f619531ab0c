"""Read checkpoints of any strategy, without running code from a pickle."""

import io
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from lit_entrodrop.runs.checkpoints.averages import AVERAGE, AVERAGES
from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights
from lit_entrodrop.runs.checkpoints.table_digest import TABLE, check_digest
from lit_entrodrop.runs.checkpoints.zero import is_zero_folder, read_rank_files, read_zero_folder

# Names that Lightning chooses.
METADATA, WEIGHTS, FSDP1_WEIGHTS = "meta.pt", "state_dict.", "model."
OPTIMIZER_STATE = "optimizer_0.state."
REQUIRED_KEYS = {"lm", "hf_config", "state_dict"}
# Strategies that do not shard write the same checkpoints.
UNSHARDED = {"SingleDeviceStrategy", "DDPStrategy"}
_METADATA_MODULE = "torch.distributed.checkpoint.metadata"
# Exact names: a dotted name could reach any import of a known module.
KNOWN_TYPES = {
    (_METADATA_MODULE, "Metadata"),
    (_METADATA_MODULE, "MetadataIndex"),
    (_METADATA_MODULE, "BytesStorageMetadata"),
    (_METADATA_MODULE, "TensorStorageMetadata"),
    (_METADATA_MODULE, "ChunkStorageMetadata"),
    (_METADATA_MODULE, "TensorProperties"),
    (_METADATA_MODULE, "StorageMeta"),
    (_METADATA_MODULE, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote; a sharded one without the state of the optimizer.

    Args:
        path: Path to a file, or to the folder that FSDP2 or DeepSpeed ZeRO-1, ZeRO-2 or ZeRO-3
            wrote.

    Returns:
        Content of the checkpoint. The weights, under ``state_dict``, are read on access.

    Raises:
        ValueError: If the path is missing or damaged, or `fit` did not write it.
    """
    if not path.exists():
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {path}, which does not exist: "
            "check the path"
        )
    if (path / "checkpoints").is_dir():
        raise ValueError(
            f"ckpt_path: expected a checkpoint, got the run folder {path}: use "
            f"{path / 'checkpoints' / 'best.ckpt'}"
        )
    if is_zero_folder(path):
        checkpoint = read_zero_folder(path)
    else:
        checkpoint = _read_shards(path) if path.is_dir() else _load(path, f"{path}, which")
    is_own = isinstance(checkpoint, dict) and all(
        isinstance(checkpoint.get(name), Mapping) for name in REQUIRED_KEYS
    )
    if not is_own:
        raise ValueError(f"ckpt_path: expected a checkpoint written by `fit`, got {path}")
    return checkpoint


def read_all(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote, with the state of the optimizer.

    Args:
        path: Path as for :func:`read_checkpoint`.

    Returns:
        Content of the checkpoint. For a folder of shards, ``state_dict`` has all tensors, which are
        read on access, and ``values`` all other values. For DeepSpeed ZeRO, the content of the
        files of all ranks, by file name.

    Raises:
        ValueError: If the path is missing or damaged, or `fit` did not write it.
    """
    checkpoint = read_checkpoint(path)
    if is_zero_folder(path):
        return read_rank_files(path)
    if not path.is_dir():
        return checkpoint
    reader = SafeReader(path)
    contents = reader.read_metadata()
    items = contents.state_dict_metadata.items()
    values = {
        name: _read_value(path, contents, name)
        for name, item in items
        if isinstance(item, BytesStorageMetadata)
    }
    tensors = _lazy_weights(reader, contents.state_dict_metadata)
    return {**checkpoint, "state_dict": tensors, "values": values}


def check_same_model(configured: Mapping[str, torch.Size], saved: Mapping[str, torch.Size]) -> None:
    """Raise a ValueError if a name or a shape of the saved weights differs from the model's."""
    names = configured.keys() | saved
    if different := sorted(name for name in names if configured.get(name) != saved.get(name)):
        raise ValueError(
            "ckpt_path: expected a checkpoint of the configured model, got one that differs in "
            f"{len(different)} tensors, the first {different[0]}: name the model that was trained"
        )


def check_same_strategy(current: str, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Raise a ValueError if another strategy wrote the checkpoint: its optimizer state differs.

    Args:
        current: Class name of the strategy of the run.
        checkpoint: Content of the checkpoint, as :func:`read_checkpoint` returns it.
        path: Path to the checkpoint, for the error.
    """
    writer = checkpoint["provenance"]["trainer"]["strategy"]
    if current != writer and not {current, writer} <= UNSHARDED:
        raise ValueError(
            f"ckpt_path: expected a checkpoint that {current} wrote, got {path}, which {writer} "
            "wrote: resume with that strategy, or start a new run from the exported model"
        )


class SafeReader(FileSystemReader):
    """PyTorch's reader of a folder of shards, whose metadata may contain only known types."""

    _contents: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the metadata, which is read once.

        Raises:
            ValueError: If the file is missing or damaged, or contains another type.
        """
        if self._contents is None:
            path = self.fs.concat_path(self.path, TABLE)
            try:
                check_digest(Path(self.path))
                with self.fs.create_stream(path, "rb") as file:
                    _KnownTypesOnly(file).load()
                self._contents = super().read_metadata(*args, **kwargs)
            except Exception as error:
                raise ValueError(
                    f"ckpt_path: expected a checkpoint written by `fit`, got {path}, which cannot "
                    f"be read: {error!r}"
                ) from error
        return self._contents


class _KnownTypesOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in KNOWN_TYPES or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it contains {module}.{name}, an unknown type")


def _load(file: Path | io.BytesIO, subject: str) -> Any:
    try:
        is_file = isinstance(file, Path)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_file)
    except Exception as error:
        # The message of torch.load suggests to allow pickled code.
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {subject} cannot be read "
            f"({type(error).__name__}): if `fit` wrote it, it is damaged: use another checkpoint, "
            "or copy it again"
        ) from error


def _read_shards(folder: Path) -> dict[str, Any]:
    metadata = _load(folder / METADATA, f"{folder / METADATA}, which")
    reader = SafeReader(folder)
    contents = reader.read_metadata()
    items = contents.state_dict_metadata
    if any(name.startswith(FSDP1_WEIGHTS) for name in items):
        raise ValueError(
            f"ckpt_path: expected a checkpoint of FSDP2 or DeepSpeed, got {folder}, which FSDP1 "
            "wrote: FSDP1 is not supported; export it with the version that wrote it, and start a "
            "new run from the exported model"
        )
    _require_complete_files(folder, contents)
    return {
        **metadata,
        "state_dict": _lazy_weights(reader, items, WEIGHTS),
        AVERAGES: _lazy_weights(reader, items, OPTIMIZER_STATE, f".{AVERAGE}"),
    }


def _require_complete_files(folder: Path, contents: Metadata) -> None:
    sizes: dict[str, int] = {}
    for part in (contents.storage_data or {}).values():
        end = part.offset + part.length
        sizes[part.relative_path] = max(sizes.get(part.relative_path, 0), end)
    for name, size in sorted(sizes.items()):
        file = folder / name
        if not file.exists():
            raise ValueError(
                f"ckpt_path: found no {file}, a shard of the checkpoint: copy the whole folder"
            )
        if file.stat().st_size < size:
            raise ValueError(
                f"ckpt_path: expected a shard of {size} bytes, got {file} of "
                f"{file.stat().st_size}, which is truncated: copy it again"
            )


def _lazy_weights(
    reader: SafeReader, items: Mapping[str, Any], prefix: str = "", suffix: str = ""
) -> LazyWeights:
    """Return the tensors whose names have a prefix and a suffix, by the part between them."""

    def read(name: str, item: TensorStorageMetadata) -> Tensor:
        weight = torch.empty(item.size, dtype=item.properties.dtype)
        try:
            load_shards({name: weight}, storage_reader=reader, no_dist=True)
        except CheckpointException as error:
            reason = type(next(iter(error.failures.values()))[0]).__name__
            raise ValueError(
                f"ckpt_path: {name} in the shards of {reader.path} cannot be read ({reason}): use "
                "another checkpoint, or copy it again"
            ) from error
        return weight

    return LazyWeights(
        {
            name.removeprefix(prefix).removesuffix(suffix): (item.size, partial(read, name, item))
            for name, item in items.items()
            if isinstance(item, TensorStorageMetadata)
            and name.startswith(prefix)
            and name.endswith(suffix)
        }
    )


def _read_value(folder: Path, contents: Metadata, name: str) -> Any:
    # PyTorch's reader would run pickled code.
    place = contents.storage_data[MetadataIndex(name)]
    with (folder / place.relative_path).open("rb") as file:
        file.seek(place.offset)
        content = io.BytesIO(file.read(place.length))
    return _load(content, f"{folder}, whose {name}")
