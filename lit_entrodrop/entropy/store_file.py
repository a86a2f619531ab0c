"""File format of an entropy store: rows updated in place, each with a checksum.

The file is always a valid safetensors file of two tensors: `entropy` [N, T] fp16 in nats, and
`checksum` [N] uint32. A row is written before its checksum, so a row whose writer was killed does
not match its checksum and counts as unknown. N blocks, T tokens in a block.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Mode = Literal["r+", "c"]

DTYPES = {"checksum": "U32", "entropy": "F16"}
UNWRITTEN = 0
SLAB = 2**22


@dataclass(frozen=True, eq=False)
class MappedRows:
    """The arrays of a file, memory-mapped.

    Attributes:
        values: Values of each token, [N, T] fp16, nats; NaN where unknown.
        checksums: Checksum of each row, [N] uint32; 0 for a row that was never written.
        fingerprint: Content hash of the blocks.
    """

    values: NDArray[np.float16]
    checksums: NDArray[np.uint32]
    fingerprint: str

    def write(self, block: int, row: NDArray[np.float16]) -> None:
        """Write the row of a block, then its checksum."""
        self.values[block] = row
        self.checksums[block] = row_checksum(block, row.tobytes())

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each row was written, [N] bool."""
        known: NDArray[np.bool_] = self.checksums != UNWRITTEN
        return known


def row_checksum(block: int, row: bytes) -> int:
    """Return the CRC-32 of a row and its block number; never 0.

    >>> row_checksum(0, b"ab") == row_checksum(1, b"ab")
    False
    """
    return zlib.crc32(row, zlib.crc32(struct.pack("<q", block))) or 1


def slabs(num_blocks: int, block_size: int) -> Iterator[slice]:
    """Divide the rows into slices of bounded memory.

    >>> list(slabs(3, 2**21))
    [slice(0, 2, None), slice(2, 4, None)]
    """
    height = max(1, SLAB // block_size)
    return (slice(start, start + height) for start in range(0, num_blocks, height))


def file_size(num_blocks: int, block_size: int) -> int:
    """Return the bytes of a file, without its short header.

    >>> file_size(num_blocks=2, block_size=3)
    20
    """
    return num_blocks * (4 + 2 * block_size)


def create(file: BinaryIO, num_blocks: int, block_size: int, fingerprint: str) -> MappedRows:
    """Fill an empty file with unknown rows, and map it.

    The whole file is written, so that a full disk fails here and not at a write to a mapped page.
    """
    file.write(_header(num_blocks, block_size, fingerprint))
    file.write(np.full(num_blocks, UNWRITTEN, "<u4").tobytes())
    for slab in slabs(num_blocks, block_size):
        height = len(range(num_blocks)[slab])
        file.write(np.full((height, block_size), np.nan, "<f2").tobytes())
    file.flush()
    return _map(file, "r+")


def open_rows(path: Path, mode: Mode = "c") -> tuple[MappedRows, int]:
    """Map a file and verify every row; mode "r+" writes changes to the file, "c" does not.

    Returns:
        The rows, and the number of damaged rows, which now count as unknown.

    Raises:
        ValueError: If the file has another format or is truncated.
    """
    try:
        # safe_open refuses tensors that do not cover the file exactly.
        with safe_open(path, framework="np") as checked:
            _check_layout(checked)
        with open(path, "rb" if mode == "c" else "r+b") as file:
            rows = _map(file, mode)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"entropies: expected a file written by `lit-entrodrop score`, got {path}: {error}: "
            "set another file, or run `lit-entrodrop score` again"
        ) from error
    return rows, _clear_damaged_rows(rows)


def _header(num_blocks: int, block_size: int, fingerprint: str) -> bytes:
    starts = (0, 4 * num_blocks, 4 * num_blocks + 2 * num_blocks * block_size)
    shapes = {"checksum": [num_blocks], "entropy": [num_blocks, block_size]}
    entries = {
        name: {"dtype": dtype, "shape": shapes[name], "data_offsets": place}
        for (name, dtype), place in zip(DTYPES.items(), pairwise(starts), strict=True)
    }
    text = json.dumps({"__metadata__": {"fingerprint": fingerprint}, **entries}).encode()
    # Trailing spaces align the arrays.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _check_layout(file: Any) -> None:
    found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    if found != DTYPES:
        raise SafetensorError(f"expected the tensors {DTYPES}, found {found}")
    shapes = {name: file.get_slice(name).get_shape() for name in DTYPES}
    if len(shapes["entropy"]) != 2 or shapes["checksum"] != shapes["entropy"][:1]:
        raise SafetensorError(f"expected one checksum per row, found the shapes {shapes}")


def _map(file: BinaryIO, mode: Mode) -> MappedRows:
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    # Access to a memmap object is far slower than to a plain array over the same memory.
    checksums, values = (
        np.memmap(
            file,
            numpy_dtype,
            mode,
            offset=8 + length + header[name]["data_offsets"][0],
            shape=tuple(header[name]["shape"]),
        ).view(np.ndarray)
        for name, numpy_dtype in zip(DTYPES, ("<u4", "<f2"), strict=True)
    )
    fingerprint = header.get("__metadata__", {}).get("fingerprint", "unknown")
    return MappedRows(values, checksums, fingerprint)


def _clear_damaged_rows(rows: MappedRows) -> int:
    count = 0
    for slab in slabs(*rows.values.shape):
        values, checksums = rows.values[slab], rows.checksums[slab]
        found = [
            row_checksum(block, row) for block, row in enumerate(map(bytes, values), slab.start)
        ]
        damaged = np.array(found, np.uint32) != checksums
        # A row that was never written is not damaged; writing to its page would allocate memory.
        damaged &= (checksums != UNWRITTEN) | ~np.isnan(values).all(1)
        checksums[damaged] = UNWRITTEN
        values[damaged] = np.nan
        count += int(damaged.sum())
    return count
