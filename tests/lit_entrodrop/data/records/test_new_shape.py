"""A new shape of records is one module; nothing else is edited."""

from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path

import pytest

from lit_entrodrop.data import TextDataModule, records
from lit_entrodrop.data.reading import Reading
from lit_entrodrop.data.records import document_from_row, fitting_shapes, supported_shapes
from tests.lit_entrodrop.data.conftest import DataModuleFactory, texts, write_jsonl

MODULE = '''
"""Questions with several answers."""

SHAPE = "faq"
REQUIRED = ("question", "answers")
OPTIONAL = ()


def read(row):
    return "text", row["question"] + " " + " ".join(row["answers"])
'''


@pytest.fixture
def faq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drop a module into the package of shapes."""
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "faq.py").write_text(MODULE)
    monkeypatch.setattr(records, "__path__", [*records.__path__, str(package)])
    for cached in (supported_shapes, fitting_shapes):
        cached.cache_clear()
    yield
    for cached in (supported_shapes, fitting_shapes):
        cached.cache_clear()


@pytest.mark.usefixtures("faq")
def test_a_module_in_the_package_is_a_shape(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    questions = [{"question": text, "answers": ["Yes.", "No."]} for text in texts(30)]
    chats = [{"prompt": text, "completion": " Yes."} for text in texts(20)]
    corpus = write_jsonl(tmp_path / "a.jsonl", [*questions, *chats, {"text": "Fever and pain."}])
    data = datamodule(corpus=str(corpus), validation=0)
    data.setup()
    counted = "51 documents (30 faq, 20 prompt_completion, 1 text; 0 exact duplicates)"
    assert data.summary().startswith(f"train: {counted}")
    with pytest.raises(ValueError, match="'question' and 'answers', or 'messages'"):
        document_from_row({"body": "x"}, Reading(), "")


def test_help_lists_every_shape() -> None:
    explained = getdoc(TextDataModule)
    assert explained is not None
    assert f"format: Format of the records ({', '.join(supported_shapes())})" in explained
