import os
import stat
from pathlib import Path

import pytest

from lit_entrodrop.data.packing.token_files import TokenFiles
from lit_entrodrop.data.preparing.cache import ARRAYS, INDEX, read_splits, write_splits
from lit_entrodrop.data.preparing.packed_splits import PackedSplit
from tests.lit_entrodrop.data.packing.test_blocks import random_documents


def split(seed: int, folder: Path | None = None) -> PackedSplit:
    documents = random_documents(seed)
    files = TokenFiles(block_size=16)
    files.append(documents)
    return PackedSplit(
        files.pack(pad_id=0, folder=folder), documents=30, duplicates=0, adjustments={"blank": seed}
    )


def write_train(draft: Path) -> dict[str, PackedSplit]:
    return {"train": split(1, draft / "train")}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    seeds = {"train": 1, "validation": 2}
    write_splits(
        tmp_path / "key",
        lambda draft: {
            "train": split(1, draft / "train"),
            "validation": split(2, draft / "validation"),
        },
    )
    found = read_splits(tmp_path / "key")
    assert found is not None
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    for name, seed in seeds.items():
        original = split(seed)
        assert found[name].blocks.fingerprint == original.blocks.fingerprint
        assert found[name].describe() == original.describe()
        assert all(
            found[name].blocks[3][key].equal(value) for key, value in original.blocks[3].items()
        )


def test_absent_folder_reads_as_none(tmp_path: Path) -> None:
    assert read_splits(tmp_path / "key") is None


@pytest.mark.parametrize("name", [INDEX, *(f"train/{array}.npy" for array in ARRAYS)])
@pytest.mark.parametrize("damage", ["removed", "emptied", "torn", "altered"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "key"
    write_splits(folder, write_train)
    path = folder / name
    content = path.read_bytes()
    damaged = {
        "removed": None,
        "emptied": b"",
        "torn": content[:-20],
        "altered": content[:-20] + bytes(20),
    }[damage]
    path.unlink() if damaged is None else path.write_bytes(damaged)
    with pytest.warns(UserWarning, match=f"cache {folder} is damaged .*: .*: the corpus is"):
        write_splits(folder, write_train)
    assert read_splits(folder) is not None


def test_of_two_processes_the_first_to_finish_provides_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    first: list[int] = []

    def write_while_another_does(draft: Path) -> dict[str, PackedSplit]:
        write_splits(folder, write_train)
        first.append(folder.stat().st_ino)
        return write_train(draft)

    written = write_splits(folder, write_while_another_does)
    assert [folder.stat().st_ino] == first
    assert written["train"].blocks.fingerprint == split(1).blocks.fingerprint
    assert list(tmp_path.iterdir()) == [folder]


def test_every_changed_byte_of_a_header_or_of_the_index_is_noticed(tmp_path: Path) -> None:
    write_splits(tmp_path, write_train)
    for path, length in ((tmp_path / "train" / "tokens.npy", 128), (tmp_path / INDEX, None)):
        content = path.read_bytes()
        for position in range(length or len(content)):
            changed = bytearray(content)
            changed[position] ^= 2
            path.write_bytes(changed)
            with pytest.warns(UserWarning, match="damaged"):
                assert read_splits(tmp_path) is None, position
        path.write_bytes(content)
    assert read_splits(tmp_path) is not None


def test_files_and_folders_are_as_open_as_umask_allows(tmp_path: Path) -> None:
    earlier = os.umask(0o002)
    try:
        write_splits(tmp_path / "new" / "key", write_train)
    finally:
        os.umask(earlier)
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {True: 0o775, False: 0o664}


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    broken = PackedSplit(split(1).blocks, documents=object(), duplicates=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_splits(tmp_path / "key", lambda _: {"train": broken})
    assert list(tmp_path.iterdir()) == []
