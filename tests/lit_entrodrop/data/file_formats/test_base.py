"""Content that no format can read."""

from pathlib import Path

import pytest

from tests.lit_entrodrop.data.file_formats.conftest import refuse, write


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
    ],
)
def test_empty_or_binary_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, named: list[str]
) -> None:
    refuse(write(tmp_path / name, content), named)
