import json
from pathlib import Path

import pyarrow  # type: ignore[import-untyped, unused-ignore]
import pytest
from pyarrow import parquet

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import CorpusFile, read_file
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


def test_parquet_of_chats(tmp_path: Path) -> None:
    # The keys are sorted, as Arrow 21 sorts those that it infers.
    chat = [{"content": "Why?", "role": "user"}, {"content": "Fever.", "role": "assistant"}]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat}]), path)
    assert list(read_file(CorpusFile(path))) == [Document("messages", json.dumps(chat))]


def test_nulls_that_arrow_adds_are_removed(tmp_path: Path) -> None:
    calls = [{"arguments": {"city": "X"}, "name": "w"}, {"arguments": {"zone": 1}, "name": "t"}]
    rows: list[dict[str, object]] = [
        {"messages": [{"role": "assistant", "tool_calls": [{"function": call}]}]} for call in calls
    ]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(read_file(CorpusFile(path))) == [
        document_from_row(row, ReadingOptions(), "") for row in rows
    ]


def test_other_content_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", "no table")
    refuse(path, ["a.parquet", "Parquet", "Write it again"])


def test_damaged_rows_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one two three"] * 9}), path)
    content = bytearray(path.read_bytes())
    content[20:40] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: expected a file without damage, got"):
        list(read_file(CorpusFile(path)))
