import json
from pathlib import Path

import pytest

from lit_entrodrop.data.file_formats import CorpusFile, json_array, read_file
from tests.lit_entrodrop.data.conftest import write_jsonl
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(ROWS, indent=indent))
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


def test_json_with_a_record_a_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.json", ROWS)
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


def test_broken_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "x"},\n {"text"}]')
    refuse(path, ["a.json line 2", "JSON"])


def test_what_the_json_module_cannot_read_is_refused(tmp_path: Path) -> None:
    refuse(write(tmp_path / "a.json", '[{"n": ' + "9" * 5000 + "}]"), ["a.json line 1", "digits"])
    refuse(write(tmp_path / "a.json", '[{"n": ' + "[" * 100_000), ["a.json line 1", "recursion"])


def test_row_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "x"}, 7]')
    refuse(path, ["a.json row 2", "JSON object", "int"])


@pytest.mark.parametrize(
    "text",
    [
        '[{"text": "a"}, {"text": 12.5}]',
        '\n[\n {"text": "größer"},\n {"text": ["b", {}]}\n]\n',
        "[]",
        '[{"text": "a"}',
        '[{"text": "a"} {"text": "b"}]',
        '[\n{"text": "a"},\n{"text": }]',
        '[{"text": "a"}]\n]',
    ],
)
@pytest.mark.parametrize("piece", [1, 5, 2**20])
def test_elements_and_errors_are_those_of_the_json_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, piece: int
) -> None:
    monkeypatch.setattr(json_array, "PIECE", piece)
    path = write(tmp_path / "a.json", text)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        refuse(path, [f"a.json line {error.lineno}:", f"{error.msg!r} at column {error.colno}."])
    else:
        assert [record.content for record in json_array.read_records(CorpusFile(path))] == rows
