import json
from pathlib import Path
from random import Random

import pyarrow  # type: ignore[import-untyped, unused-ignore]
import pytest
from pyarrow import parquet

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import read_file, split_at_separators, split_into_groups
from tests.lit_entrodrop.data.conftest import sentence, write_jsonl

ROWS = [{"text": 'One, "two"\nlines\u2028here.'}, {"text": "Zweitens: größer."}]
DOCUMENTS = [Document("text", row["text"]) for row in ROWS]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert read_file(path, "text", alone=True) == DOCUMENTS


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(ROWS, indent=indent))
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_json_with_a_record_a_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.json", ROWS)
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_csv(tmp_path: Path) -> None:
    quoted = ['"' + row["text"].replace('"', '""') + '"' for row in ROWS]
    path = write(tmp_path / "a.csv", "\ufeffid,text\r\n" + "".join(f"7,{q}\r\n" for q in quoted))
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_parquet_of_chats(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Fever."}]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat}]), path)
    assert read_file(path, "text", alone=True) == [Document("messages", json.dumps(chat))]


def test_text_is_cut_at_separator_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n\ntwo\n<|endoftext|>\r\n\nthree <|endoftext|> four\n")
    expected = ["one\n\ntwo\n", "\nthree <|endoftext|> four\n"]
    assert [document.content for document in read_file(path, "text", alone=True)] == expected
    assert split_at_separators("plain") == ["plain"]


def test_text_without_separators_is_one_document_among_others(tmp_path: Path) -> None:
    text = "\n\n".join(sentence(Random(0), 200) for _ in range(20))
    path = write(tmp_path / "a.txt", text)
    assert read_file(path, "text", alone=False) == [Document("text", text)]
    assert len(read_file(path, "text", alone=True)) > 3


@pytest.mark.parametrize("joint", ["\n\n", "\n", "\r\n \r\n", "\n\n\n\n"])
def test_groups_give_the_text_back_in_bounded_pieces(joint: str) -> None:
    random = Random(1)
    text = joint.join(sentence(random, 15) for _ in range(400)) + "\n\n"
    groups = split_into_groups(text)
    assert "".join(groups) == text
    assert len(groups) > 3
    assert all(4_000 <= len(group) <= 8_300 for group in groups[:-1])
    assert split_into_groups(text + "more text at the end")[: len(groups) - 1] == groups[:-1]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", "", ["a.txt is empty", "Remove"]),
        ("a.jsonl", " \n\n", ["a.jsonl is empty"]),
        ("a.json", "[]", ["a.json is empty", "no document"]),
        ("a.csv", "text\n", ["a.csv is empty", "no document"]),
        ("a.txt", "<|endoftext|>\n", ["a.txt is empty", "no document"]),
        ("a.txt", "gut".encode("utf-16"), ["a.txt", "UTF-8", "0xff at offset 0", "iconv"]),
        ("a.txt", "abc größer".encode("latin-1"), ["a.txt", "0xf6 at offset 6"]),
        ("a.jsonl", b"ab\0c", ["a.jsonl", "0x00 at offset 2"]),
        ("a.jsonl", '{"text": "x"}\n\n{"text": \n', ["a.jsonl line 3", "JSON", "Repair"]),
        ("a.json", '[{"text": "x"},\n {"text"}]', ["a.json line 2", "JSON"]),
        ("a.jsonl", '"just text"\n', ["a.jsonl line 1", "JSON object", "str", "Write one"]),
        ("a.jsonl", '{"text": "x"}\n{"text": 5}\n', ["a.jsonl line 2", "'text'", "int"]),
        ("a.csv", "text,id\nx\n", ["a.csv line 2", "exactly 2 columns", "Quote"]),
        ("a.csv", "text,id\nx,1,2\n", ["a.csv line 2", "exactly 2 columns"]),
        ("a.csv", 'text\n"x\n', ["a.csv", "unexpected end of data"]),
        ("a.csv", "body\nx\n", ["a.csv row 1", "['body']", "text_column"]),
        ("a.parquet", "no table", ["a.parquet", "Parquet", "Write it again"]),
    ],
)
def test_broken_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, named: list[str]
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_file(path, "text", alone=True)
    assert all(part in str(caught.value) for part in named), caught.value
