import os
import re
from pathlib import Path
from platform import node

import pytest

from lit_entrodrop.runs.writing import (
    ABANDONED_SECONDS,
    WriteError,
    check_writable,
    draft,
    write_whole,
)
from tests.helpers.full_disk import files_of_at_most


def leave_draft(target: Path, host: str) -> Path:
    """Create what a process that was killed while it wrote a folder leaves."""
    left = target.with_name(f"{target.name}.{host}-0123abcd.part")
    (left / target.name).mkdir(parents=True)
    (left / target.name / "half.npy").write_bytes(b"\x00")
    return left


def test_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    write_whole(path, "ä\r\n")
    assert path.read_bytes() == "ä\r\n".encode()
    write_whole(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_file_stays_as_it_was_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    named = re.escape(str(path))
    needed = rf"{named}: could not be written \(File too large\): 2\.0 MB needed, [\d.,]+ MB free"
    with files_of_at_most(10**6), pytest.raises(WriteError, match=needed):
        write_whole(path, bytes(2 * 10**6))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_link_and_pipe_are_written_through(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("file")
    write_whole(link, "found")
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "found"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "found")
    assert os.read(reader, 9) == b"found"
    os.close(reader)


def test_folder_is_written_where_a_link_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "model"
    link.symlink_to("disk")
    with draft(link) as unfinished:
        write_whole(unfinished / "a.txt", "found")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "a.txt").read_text() == "found"


def test_forbidden_path_is_named() -> None:
    # Not even the superuser may create a file there.
    with pytest.raises(WriteError, match=r"/sys/a\.txt: could not be written .* may write to"):
        write_whole(Path("/sys/a.txt"), "text")


@pytest.mark.parametrize("path", ["folder", "file/a.html", "/sys/a.txt"])
def test_unwritable_path_is_refused_before_the_work(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="could not be written"):
        check_writable(tmp_path / path)
    with pytest.raises(WriteError, match="could not be written"):
        write_whole(tmp_path / path, "text")


def test_check_of_a_path_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "a.txt")
    check_writable(Path("/dev/stdout"))
    assert not list(tmp_path.iterdir())


def test_error_of_another_file_is_not_of_the_draft(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), draft(tmp_path / "a.txt"):
        raise PermissionError(13, "Permission denied", "/elsewhere/corpus.txt")


def test_folder_replaces_a_full_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with draft(tmp_path / "a") as unfinished:
            unfinished.mkdir()
            (unfinished / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["a", "a/new"]


def test_only_drafts_of_ended_processes_are_removed(tmp_path: Path) -> None:
    abandoned = leave_draft(tmp_path / "a", host=node())
    elsewhere = leave_draft(tmp_path / "a", host="node-7")
    old = leave_draft(tmp_path / "b", host="node-7")
    os.utime(old, (0, old.stat().st_mtime - ABANDONED_SECONDS - 60))
    of_a_user = tmp_path / "song.part"
    of_a_user.mkdir()
    with draft(tmp_path / "c") as running:
        running.mkdir()
        write_whole(tmp_path / "d.txt", "text")
        kept = {elsewhere, of_a_user, running.parent, tmp_path / "d.txt"}
        assert {*tmp_path.iterdir()} == kept
    assert not abandoned.exists()
