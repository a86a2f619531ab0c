"""Every format is read under every compression; damaged files are refused."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pyarrow  # type: ignore[import-untyped, unused-ignore]
import pytest
from pyarrow import parquet

from lit_entrodrop.data.file_formats import CorpusFile, read_file, supported_formats
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstd,
}


def table(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def arrow(kind: str) -> bytes:
    sink, rows = io.BytesIO(), pyarrow.Table.from_pylist(ROWS)
    if kind == "parquet":
        parquet.write_table(rows, sink)
    else:
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=1)
    return sink.getvalue()


CONTENT = {
    "text.txt": "<|endoftext|>".join(row["text"] for row in ROWS).encode(),
    "text.md": "<|endoftext|>".join(row["text"] for row in ROWS).encode(),
    "lines.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "table.csv": table(","),
    "table.tsv": table("\t"),
    "table.parquet": arrow("parquet"),
    "stream.arrow": arrow("stream"),
    "file.arrow": arrow("file"),
}


def test_every_format_is_in_the_table() -> None:
    assert {Path(name).suffix for name in CONTENT} == set(supported_formats())


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("name", CONTENT)
def test_every_format_is_read_under_every_compression(
    tmp_path: Path, name: str, compression: str
) -> None:
    content = COMPRESS[compression](CONTENT[name])
    for cased in (f"{name}{compression}", f"{name}{compression}".upper()):
        assert list(read_file(CorpusFile(write(tmp_path / cased, content)))) == DOCUMENTS


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
def test_damaged_file_is_refused(tmp_path: Path, compression: str) -> None:
    lines = "".join(json.dumps({"text": f"{number}"}) + "\n" for number in range(1000))
    whole = COMPRESS[compression](lines.encode())
    name = f"a.jsonl{compression}"
    named = [name, "expected a complete", "Download or compress it again"]
    for content in (whole[: len(whole) // 2], whole[:-3], b"no archive", whole[:40] + whole[60:]):
        refuse(write(tmp_path / name, content), named)
    refuse(write(tmp_path / f"a.parquet{compression}", whole[:-3]), ["expected a complete"])
    refuse(write(tmp_path / f"a.arrow{compression}", whole), ["expected an Arrow file"])
    refuse(write(tmp_path / name, COMPRESS[compression](b"")), [f"{name} is empty"])


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
def test_parts_that_were_compressed_apart_are_read(tmp_path: Path, compression: str) -> None:
    lines = [f"{json.dumps(row)}\n".encode() for row in ROWS]
    content = b"".join(map(COMPRESS[compression], lines))
    path = write(tmp_path / f"a.jsonl{compression}", content)
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
def test_memory_does_not_grow_with_a_compressed_file(tmp_path: Path, compression: str) -> None:
    text = "".join(Random(0).choices("acute renal ", k=1_000_000))
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression](text.encode()))
    tracemalloc.start()
    read = sum(map(len, CorpusFile(path).read_pieces()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == len(text)
    assert peak < read
