from pathlib import Path

import pytest

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import CorpusFile, read_file
from lit_entrodrop.data.reading_options import ReadingOptions
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


def test_csv(tmp_path: Path) -> None:
    quoted = ['"' + row["text"].replace('"', '""') + '"' for row in ROWS]
    path = write(tmp_path / "a.csv", "\ufeffid,text\r\n" + "".join(f"7,{q}\r\n" for q in quoted))
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


def test_first_column_may_have_no_name(tmp_path: Path) -> None:
    # As pandas writes the index.
    path = write(tmp_path / "a.csv", ",text\n0,One\n")
    assert [document.content for document in read_file(CorpusFile(path))] == ["One"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("text,id\nx\n", ["a.csv line 2", "exactly 2 columns", "Quote"]),
        ("text,id,text\nx,1,y\n", ["a.csv line 1", "several columns of the name 'text'"]),
        ("text,id\nx,1,2\n", ["a.csv line 2", "exactly 2 columns"]),
        ('text\n"x\n', ["a.csv", "unexpected end of data"]),
        ("body\nx\n", ["a.csv row 1", "['body']", "{text: body}"]),
    ],
)
def test_broken_table_is_refused(tmp_path: Path, content: str, named: list[str]) -> None:
    refuse(write(tmp_path / "a.csv", content), named)


def test_other_delimiter_is_read_by_setting(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        path = write(tmp_path / name, 'id;text\n7;"One; two, three"\n')
        file = CorpusFile(path, ReadingOptions(delimiter=";"))
        assert list(read_file(file)) == [Document("text", "One; two, three")]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.csv", "id;text\n1;x, y\n", ["a.csv line 1", "the single column 'id;text'", "to ';'"]),
        ("a.csv", "id\ttext\n1\tx\n", ["separated by ','", r"Set data.delimiter to '\t'"]),
        ("a.tsv", "id,text\n1,x\n", [r"separated by '\t'", "Set data.delimiter to ','"]),
    ],
)
def test_header_with_another_delimiter_names_the_setting(
    tmp_path: Path, name: str, content: str, named: list[str]
) -> None:
    refuse(write(tmp_path / name, content), named)
