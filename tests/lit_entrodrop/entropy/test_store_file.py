import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lit_entrodrop.entropy.store_file import MappedRows, create, open_rows, row_checksum, slabs

BLOCKS, TOKENS = 5, 6


def rows_of(seed: int) -> NDArray[np.float16]:
    values = np.random.default_rng(seed).uniform(0.1, 9, (BLOCKS, TOKENS)).astype(np.float16)
    values[:, 0] = np.nan
    return values


def make(path: Path, written: NDArray[np.float16] | None = None) -> MappedRows:
    with open(path, "w+b") as file:
        rows = create(file, BLOCKS, TOKENS, "abc")
    for block, row in enumerate(written if written is not None else []):
        rows.write(block, row)
    return rows


def same(actual: NDArray[np.float16], expected: NDArray[np.float16]) -> bool:
    return actual.tobytes() == expected.tobytes()


def test_is_a_valid_safetensors_file_at_every_moment(tmp_path: Path) -> None:
    path, written = tmp_path / "e.safetensors", rows_of(0)
    rows = make(path)
    for block, row in enumerate(written):
        tensors = load_file(path)
        assert set(tensors) == {"entropy", "checksum"}
        assert same(tensors["entropy"][:block], written[:block])
        assert np.isnan(tensors["entropy"][block:]).all()
        assert ((tensors["checksum"] != 0) == (np.arange(BLOCKS) < block)).all()
        rows.write(block, row)


@pytest.mark.parametrize("seed", range(5))
def test_written_rows_are_read_back(tmp_path: Path, seed: int) -> None:
    rows, random = make(tmp_path / "e"), np.random.default_rng(seed)
    expected = np.full((BLOCKS, TOKENS), np.nan, np.float16)
    for time in range(8):
        block = int(random.integers(BLOCKS))
        expected[block] = rows_of(time)[block]
        rows.write(block, expected[block])
        again, torn = open_rows(tmp_path / "e")
        assert torn == 0
        np.testing.assert_array_equal(again.values, expected)
        assert again.known.tolist() == (~np.isnan(expected).all(1)).tolist()
        assert again.fingerprint == "abc"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("done", range(2 * TOKENS + 1))
def test_row_cut_short_is_unknown(tmp_path: Path, known: bool, done: int) -> None:
    path, old, new = tmp_path / "e", rows_of(0), rows_of(1)
    rows = make(path, old if known else None)
    row = rows.values[3:4].view(np.uint8)[0]
    row[:done] = new[3:4].view(np.uint8)[0, :done]
    before = row.tobytes()
    again, torn = open_rows(path)
    whole = np.frombuffer(before, np.float16)
    if known and same(whole, old[3]):
        assert torn == 0
        assert same(again.values[3], old[3])
    else:
        assert np.isnan(again.values[3]).all()
        assert not again.known[3]
        assert torn == (not np.isnan(whole).all())
    others = np.arange(BLOCKS) != 3
    assert (again.known[others] == known).all()
    assert row.tobytes() == before, "a file that is read is not written to"


def test_no_flipped_byte_passes(tmp_path: Path) -> None:
    path, written = tmp_path / "e", rows_of(0)
    make(path, written)
    intact = path.read_bytes()
    (length,) = struct.unpack("<Q", intact[:8])
    for place in range(8 + length, len(intact)):
        flipped = bytearray(intact)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        rows, torn = open_rows(path)
        assert torn == 1
        assert rows.known.sum() == BLOCKS - 1
        assert same(rows.values[rows.known], written[rows.known])
        assert np.isnan(rows.values[~rows.known]).all()


def test_row_of_another_block_is_unknown(tmp_path: Path) -> None:
    rows = make(tmp_path / "e", rows_of(0))
    rows.values[1], rows.checksums[1] = rows.values[0], rows.checksums[0]
    again, torn = open_rows(tmp_path / "e")
    assert torn == 1
    assert not again.known[1]


def test_torn_rows_are_repaired_for_a_writer(tmp_path: Path) -> None:
    make(tmp_path / "e", rows_of(0)).values[2, 3] = 0
    rows, torn = open_rows(tmp_path / "e", "r+")
    assert torn == 1
    assert np.isnan(load_file(tmp_path / "e")["entropy"][2]).all()
    rows.write(2, rows_of(1)[2])
    again, torn = open_rows(tmp_path / "e")
    assert torn == 0
    assert same(again.values[2], rows_of(1)[2])


def test_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    make(path, rows_of(0))
    intact = path.read_bytes()
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.raises(ValueError, match=r"`lit-entrodrop score`, got .*: set another file"):
            open_rows(path)


HALFS, SUMS = np.zeros((3, 2), np.float16), np.zeros(3, np.uint32)
FOREIGN: dict[str, dict[str, NDArray[np.generic]]] = {
    "without checksums": {"entropy": HALFS},
    "model": {"weight": HALFS},
    "more": {"entropy": HALFS, "checksum": SUMS, "weight": HALFS},
    "singles": {"entropy": HALFS.astype(np.float32), "checksum": SUMS},
    "fewer checksums": {"entropy": HALFS, "checksum": SUMS[:2]},
    "one row": {"entropy": HALFS[0], "checksum": SUMS},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_layout_is_refused(tmp_path: Path, name: str) -> None:
    save_file(FOREIGN[name], tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match=r"`lit-entrodrop score`, got .*expected .*, found"):
        open_rows(tmp_path / "e.safetensors")


def test_other_order_of_the_tensors_is_read(tmp_path: Path) -> None:
    written = rows_of(0)
    sums = [row_checksum(block, row.tobytes()) for block, row in enumerate(written)]
    tensors = {"entropy": written, "checksum": np.array(sums, np.uint32)}
    save_file(tensors, tmp_path / "e", metadata={"fingerprint": "xyz"})
    rows, torn = open_rows(tmp_path / "e")
    assert (torn, rows.fingerprint) == (0, "xyz")
    assert same(rows.values, written)


@pytest.mark.parametrize("write", [lambda path: path.mkdir(), lambda path: None])
def test_what_is_no_file_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "e")
    with pytest.raises(ValueError, match=r"expected a file written by `lit-entrodrop score`"):
        open_rows(tmp_path / "e")


def test_verification_numbers_rows_across_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "e", rows_of(0))
    monkeypatch.setattr("lit_entrodrop.entropy.store_file.SLAB", 2 * TOKENS)
    assert len(list(slabs(BLOCKS, TOKENS))) == 3
    rows, torn = open_rows(tmp_path / "e")
    assert torn == 0
    assert rows.known.all()
