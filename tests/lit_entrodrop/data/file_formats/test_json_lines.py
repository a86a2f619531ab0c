from pathlib import Path

import pytest

from lit_entrodrop.data.file_formats import CorpusFile, read_file
from tests.lit_entrodrop.data.conftest import write_jsonl
from tests.lit_entrodrop.data.file_formats.conftest import DOCUMENTS, ROWS, refuse, write


def test_json_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert list(read_file(CorpusFile(path))) == DOCUMENTS


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"text": "x"}\n\n{"text": \n', ["a.jsonl line 3", "JSON", "Repair"]),
        ('"just text"\n', ["a.jsonl line 1", "JSON object", "str", "Write one"]),
        ('{"n": ' + "9" * 5000 + "}\n", ["a.jsonl line 1", "4300 digits", "Repair"]),
        ('{"n": ' + "[" * 100_000, ["a.jsonl line 1", "recursion", "Repair"]),
        ('{"text": "x", "text": "y"}', ["a.jsonl line 1", "key 'text' twice", "Repair"]),
        ('{"text": "x"}\n{"text": 5}\n', ["a.jsonl line 2", "'text'", "int"]),
    ],
)
def test_broken_line_is_refused(tmp_path: Path, content: str, named: list[str]) -> None:
    refuse(write(tmp_path / "a.jsonl", content), named)
