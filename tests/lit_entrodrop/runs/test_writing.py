from pathlib import Path

import pytest

from lit_entrodrop.runs.writing import write_whole


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
    assert path.read_text() == "old"
