import gzip
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped, unused-ignore]
import pytest
from datasets import Dataset

from lit_entrodrop.data.file_formats import CorpusFile, arrow_table, parquet_table, read_file
from tests.lit_entrodrop.data.file_formats.conftest import refuse, write


def test_objects_that_datasets_stores_as_json_are_parsed(tmp_path: Path) -> None:
    """Tools have different arguments, some null: `datasets` stores them as JSON."""
    arguments: list[dict[str, object]] = [{"city": "X", "zone": None}, {"at": [1, {"b": 2}]}]
    rows = [{"turns": [{"role": "assistant", "tool_calls": [each]}]} for each in arguments]
    dataset = Dataset.from_list(rows, on_mixed_types="use_json")
    dataset.save_to_disk(tmp_path)
    [path] = tmp_path.glob("*.arrow")
    assert [record.content for record in arrow_table.read_records(CorpusFile(path))] == rows
    dataset.to_parquet(tmp_path / "a.parquet")
    file = CorpusFile(tmp_path / "a.parquet")
    assert [record.content for record in parquet_table.read_records(file)] == rows


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_other_or_cut_content_is_refused(tmp_path: Path, cut: float) -> None:
    refuse(write(tmp_path / "a.arrow", "no table"), ["a.arrow", "Arrow", "Write it again"])
    table = pyarrow.table({"text": [100 * "acute "]})
    with pyarrow.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    content = (tmp_path / "b.arrow").read_bytes()
    refuse(write(tmp_path / "b.arrow", content[: int(cut * len(content))]), ["b.arrow", "Arrow"])


@pytest.mark.parametrize("new", [pyarrow.ipc.new_stream, pyarrow.ipc.new_file])
@pytest.mark.parametrize("suffix", [".arrow", ".arrow.gz"])
def test_cut_between_batches_is_refused(tmp_path: Path, new: Any, suffix: str) -> None:
    table, sink, ends = pyarrow.table({"text": ["one", "two", "three"]}), BytesIO(), []
    with new(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=1):
            writer.write_batch(batch)
            ends.append(sink.tell())
    path = tmp_path / f"a{suffix}"
    for end in (None, *ends):
        content = sink.getvalue()[:end]
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
        if end is None:
            assert len(list(read_file(CorpusFile(path)))) == 3
        else:
            refuse(path, ["expected an Arrow file, got no end"])


def test_file_without_its_end_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "a.arrow", pyarrow.table({"text": ["one", "two"]})
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.arrow: expected an Arrow file, got no end"):
        list(read_file(CorpusFile(path)))
