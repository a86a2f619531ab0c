from pathlib import Path

import pytest

from lit_entrodrop.data.file_formats import read_file
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


def test_csv(tmp_path: Path) -> None:
    quoted = ['"' + row["text"].replace('"', '""') + '"' for row in ROWS]
    path = write(tmp_path / "a.csv", "\ufeffid,text\r\n" + "".join(f"7,{q}\r\n" for q in quoted))
    assert list(read_file(path, "text", alone=True)) == DOCUMENTS


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("text,id\nx\n", ["a.csv line 2", "exactly 2 columns", "Quote"]),
        ("text,id\nx,1,2\n", ["a.csv line 2", "exactly 2 columns"]),
        ('text\n"x\n', ["a.csv", "unexpected end of data"]),
        ("body\nx\n", ["a.csv row 1", "['body']", "text_column"]),
    ],
)
def test_broken_table_is_refused(tmp_path: Path, content: str, named: list[str]) -> None:
    refuse(write(tmp_path / "a.csv", content), named)
