"""Arrays that are written and read piece by piece, so that memory does not grow with them."""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

PIECE = 2**18  # items


def save_array(
    pieces: Iterable[NDArray[Any]], name: str, folder: Path | None = None
) -> NDArray[Any]:
    """Join pieces of a one-dimensional array, in memory or in a file.

    Args:
        pieces: Parts of the array, at least one, all of the same type.
        name: Name of the array.
        folder: Path to a folder for a new file `NAME.npy`, created if needed; by default, the
            array is in memory.

    Returns:
        The array, memory-mapped if it is in a file.
    """
    if folder is None:
        return np.concatenate(list(pieces))
    folder.mkdir(exist_ok=True)
    path, length = folder / f"{name}.npy", 0
    with path.open("xb") as file:
        for piece in pieces:
            if not length:
                _write_header(file, piece.dtype, 0)
            # Not `tofile`: its error does not say that the disk is full.
            file.write(np.ascontiguousarray(piece).data)
            length += len(piece)
        file.seek(0)
        _write_header(file, piece.dtype, length)
    mapped: NDArray[Any] = np.load(path, mmap_mode="r")
    return mapped


def pieces_of(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield parts of an array; the pages of a memory-mapped one are released afterwards.

    >>> sum(len(piece) for piece in pieces_of(np.zeros(PIECE + 1)))
    262145
    """
    for start in range(0, len(values), PIECE):
        yield values[start : start + PIECE]
        release_pages(values)


def release_pages(values: NDArray[Any]) -> None:
    """Release the pages of a memory-mapped array from the memory of this process."""
    if isinstance(values.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.base.madvise(mmap.MADV_DONTNEED)


def _write_header(file: BinaryIO, dtype: np.dtype[Any], length: int) -> None:
    # NumPy pads the header so that its size does not depend on the length.
    header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
