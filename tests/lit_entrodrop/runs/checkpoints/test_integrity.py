import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.runs.checkpoints.integrity import verify_checkpoint
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.runs.checkpoints.table_digest import DIGEST, write_digest
from tests.lit_entrodrop.runs.checkpoints.test_reading import OURS, write_shards

WEIGHTS = {"a": torch.arange(3000.0), "b": torch.ones(7, 2)}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "step=1.ckpt"
    torch.save({**OURS, "state_dict": WEIGHTS}, path)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = write_shards(tmp_path / "step=1.ckpt", WEIGHTS, step=1)
    write_digest(folder)
    return folder


def content(path: Path) -> str:
    """Return all that is read from a checkpoint, every digit of it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        return value.tolist() if isinstance(value, Tensor) else value

    return repr(plain(read_all(path)))


def flip(file: Path, place: int) -> None:
    changed = bytearray(file.read_bytes())
    changed[place] ^= 1 << place % 8
    file.write_bytes(changed)


def places(file: Path, count: int = 40) -> Iterator[int]:
    """Yield places evenly spread over a file, and all within its ends."""
    size = file.stat().st_size
    yield from {*range(0, size, max(1, size // count)), *range(size - count, size)}


def refused_flips(path: Path, file: Path) -> int:
    """Flip bits of a file, one at a time; count refused ones, as the others change nothing."""
    expected, refused = content(path), 0
    for place in places(file):
        flip(file, place)
        try:
            verify_checkpoint(path)
            found = content(path)
        except ValueError as error:
            found, refused = expected, refused + (str(path) in str(error))
        flip(file, place)
        assert found == expected, place
    verify_checkpoint(path)
    return refused


def test_no_flipped_bit_changes_a_checkpoint(whole: Path) -> None:
    assert refused_flips(whole, whole) > 20


@pytest.mark.parametrize("name", [".metadata", "meta.pt", "__0_0.distcp"])
def test_no_flipped_bit_changes_shards(shards: Path, name: str) -> None:
    assert refused_flips(shards, shards / name) > 20


def test_file_and_record_are_named(whole: Path) -> None:
    start = whole.read_bytes().index(torch.arange(100.0).numpy().tobytes())
    whole.write_bytes(
        whole.read_bytes()[: start + 64] + bytes(64) + whole.read_bytes()[start + 128 :]
    )
    expected = f"{whole} is damaged: its record step=1/data/0 differs from what was written"
    with pytest.raises(ValueError, match=re.escape(expected)):
        verify_checkpoint(whole)


def test_shard_and_weight_are_named(shards: Path) -> None:
    file = shards / "__0_0.distcp"
    flip(file, file.read_bytes().index(torch.arange(100.0).numpy().tobytes()) + 400)
    with pytest.raises(ValueError, match=r"__0_0\.distcp is damaged: its record state_dict\.a "):
        verify_checkpoint(shards)


def test_shards_of_an_earlier_version_have_no_digest(shards: Path) -> None:
    (shards / DIGEST).unlink()
    verify_checkpoint(shards)
