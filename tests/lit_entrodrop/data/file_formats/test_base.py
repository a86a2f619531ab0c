"""Content that no format can read, and the memory that reading takes."""

import json
import tracemalloc
from pathlib import Path

import pytest

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import CorpusFile, read_file
from lit_entrodrop.data.reading_options import ReadingOptions
from tests.lit_entrodrop.data.file_formats.conftest import refuse, write


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", "", ["a.txt is empty", "Remove"]),
        ("a.jsonl", " \n\n", ["a.jsonl is empty"]),
        ("a.json", "[]", ["a.json is empty", "no document"]),
        ("a.csv", "text\n", ["a.csv is empty", "no document"]),
        ("a.txt", "<|endoftext|>\n", ["a.txt is empty", "no document"]),
        (
            "a.txt",
            "gut".encode("utf-16"),
            ["UTF-8", "0xff at offset 0", "data.encoding", "iconv"],
        ),
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "cp1252", "latin-1", "UTF8"])
@pytest.mark.parametrize("piece", [1, 7, 2**16])
def test_other_encodings_are_read_by_setting(tmp_path: Path, encoding: str, piece: int) -> None:
    text = "größer\r\n\u010a\n" if encoding.startswith(("utf", "UTF")) else "größer\r\n\n"
    file = CorpusFile(
        write(tmp_path / "a.txt", text.encode(encoding)), ReadingOptions(encoding=encoding)
    )
    assert "".join(file.read_pieces(piece)) == text
    assert list(file.read_lines()) == text.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("encoding", "content", "named"),
    [
        ("utf-16", "groß".encode("utf-16")[:-1], ["UTF-16", "at offset 8"]),
        ("utf-16", b"groesser", ["UTF-16", "BOM"]),
        ("cp1252", b"ab\x81", ["CP1252", "0x81 at offset 2"]),
        ("latin-1", "groß".encode("utf-16"), ["LATIN-1", "0x00 at offset 3"]),
    ],
)
def test_text_in_another_encoding_is_refused(
    tmp_path: Path, encoding: str, content: bytes, named: list[str]
) -> None:
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match=r"a\.txt: expected .* Set data\.encoding") as caught:
        list(read_file(CorpusFile(path, ReadingOptions(encoding=encoding))))
    assert all(part in str(caught.value) for part in named), caught.value


def test_every_text_format_has_the_encoding(tmp_path: Path) -> None:
    options = ReadingOptions(encoding="utf-16")
    for name, content in {
        "a.json": '[{"text": "größer"}]',
        "a.jsonl": '{"text": "größer"}\n',
        "a.csv": "text\ngrößer\n",
        "a.md": "größer",
    }.items():
        path = write(tmp_path / name, content.encode("utf-16"))
        assert list(read_file(CorpusFile(path, options))) == [Document("text", "größer")]
