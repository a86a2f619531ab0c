"""A new format of records is one module; nothing else is edited."""

from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path

import pytest

from lit_entrodrop.data import TextDataModule, records
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row, fitting_formats, record_formats
from tests.helpers.added_module import added_module
from tests.lit_entrodrop.data.conftest import DataModuleFactory, texts, write_jsonl

MODULE = '''
"""Questions with several answers."""

NAME = "faq"
REQUIRED = ("question", "answers")
OPTIONAL = ()


def read(row):
    return "text", row["question"] + " " + " ".join(row["answers"])
'''


@pytest.fixture
def faq(tmp_path: Path) -> Iterator[None]:
    with added_module(records, "faq", MODULE, tmp_path, (record_formats, fitting_formats)):
        yield


@pytest.mark.usefixtures("faq")
def test_a_module_in_the_package_is_a_format(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    questions = [{"question": text, "answers": ["Yes.", "No."]} for text in texts(30)]
    chats = [{"prompt": text, "completion": " Yes."} for text in texts(20)]
    corpus = write_jsonl(tmp_path / "a.jsonl", [*questions, *chats, {"text": "Fever and pain."}])
    data = datamodule(corpus=str(corpus), validation=0)
    data.setup()
    counted = "51 documents (30 faq, 20 prompt_completion, 1 text; 0 exact duplicates)"
    assert data.summary().startswith(f"train: {counted}")
    with pytest.raises(ValueError, match="'question' and 'answers', or 'messages'"):
        document_from_row({"body": "x"}, ReadingOptions(), "")


def test_help_lists_every_format() -> None:
    explained = getdoc(TextDataModule)
    assert explained is not None
    assert f"format: Format of the records ({', '.join(record_formats())})" in explained
