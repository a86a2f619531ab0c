import gzip
from pathlib import Path

import pytest

from lit_entrodrop.data.sources import describe_unread, list_files
from tests.lit_entrodrop.data.sources.test_sources import contents


def test_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("third\n\nstill third")
    (tmp_path / "b.TXT").write_text("second")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "first"}\n'))
    (tmp_path / "sub" / "README.md").write_text("fourth")
    (tmp_path / "README.md").write_text("no")
    (tmp_path / ".git" / "a.txt").write_text("no")
    assert contents(tmp_path) == ["first", "second", "fourth", "third\n\nstill third"]
    assert contents(tmp_path / "README.md") == ["no"]


def test_files_of_a_folder_that_are_not_read_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "B.TXT").write_text("two")
    for name in ("c.docx.gz", "notes.lz4", "sub/paper.pdf", ".hidden", ".git/config"):
        (folder / name).write_text("no")
    for name in ("d.zip", "e.jsonl.tar.gz", "sub/f.tgz", "README.md"):
        (folder / name).write_text("no")
    assert contents(folder) == ["two", "one"]
    described = describe_unread([str(folder), str(folder / "a.txt"), "registry:python"])
    readme, archive, suffix = sorted(described.splitlines())
    assert readme.startswith(f"{folder}: 1 file not read, because it describes the folder")
    assert readme.endswith(": README.md")
    assert suffix.startswith(f"{folder}: 3 files not read, because the suffix is none of .arrow, ")
    assert suffix.endswith(": c.docx.gz, notes.lz4, sub/paper.pdf")
    assert archive == (
        f"{folder}: 3 files not read, because archives must be unpacked: d.zip, e.jsonl.tar.gz, "
        "sub/f.tgz"
    )
    for number in range(20):
        (folder / f"{number}.zip").write_text("no")
    assert ", 17.zip, ...\n" in describe_unread([str(folder)])


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist.*Check the path"):
        list_files(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["a.docx", "a.docx.gz", "a.gz", "a"])
def test_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"a.*\.txt.*\.zst\), got '.*'.*convert"):
        list_files(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.jsonl.tar.zst", "a.TGZ"])
def test_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"got an archive\. Unpack it and name its folder"):
        list_files(tmp_path / name)


def test_folder_without_supported_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"no supported file.*\.jsonl.*Add one"):
        list_files(tmp_path)
