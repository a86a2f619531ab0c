"""Content that no format can read, and the memory that reading takes."""

import json
import tracemalloc
from pathlib import Path

import pytest

from lit_entrodrop.data.file_formats import CorpusFile, read_file
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
        ("a.json", b'[{"text": "' + 2**20 * b"a" + b"\xff", ["a.json", f"at offset {2**20 + 11}"]),
        ("a.csv", "\ufefftext\nü".encode() + b"\n\xfc", ["a.csv", "0xfc at offset 11"]),
    ],
)
def test_empty_or_binary_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, named: list[str]
) -> None:
    refuse(write(tmp_path / name, content), named)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".txt"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    text = 40 * "acute renal pain "
    rows = [{"text": f"{number} {text}"} for number in range(3_000)]
    path = write(
        tmp_path / f"a{suffix}",
        {
            ".csv": "text\n" + "".join(f"{row['text']}\n" for row in rows),
            ".json": json.dumps(rows),
            ".jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
            ".txt": "\n\n".join(row["text"] for row in rows),
        }[suffix],
    )
    characters = sum(len(row["text"]) for row in rows)
    tracemalloc.start()
    read = sum(len(document.content) for document in read_file(CorpusFile(path)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read >= characters
    assert peak < characters / 2
