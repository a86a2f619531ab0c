import json
from pathlib import Path

import pytest

from lit_entrodrop.data.file_formats import read_file
from tests.lit_entrodrop.data.conftest import write_jsonl
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(ROWS, indent=indent))
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_json_with_a_record_a_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.json", ROWS)
    assert read_file(path, "text", alone=True) == DOCUMENTS


def test_broken_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "x"},\n {"text"}]')
    refuse(path, ["a.json line 2", "JSON"])


def test_row_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "x"}, 7]')
    refuse(path, ["a.json row 2", "JSON object", "int"])
