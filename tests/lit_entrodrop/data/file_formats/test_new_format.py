"""A new file format is one module; nothing else is edited."""

from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from random import Random

import pytest

from lit_entrodrop.data import TextDataModule, file_formats
from lit_entrodrop.data.file_formats import supported_formats
from lit_entrodrop.data.sources import list_files
from tests.helpers.added_module import added_module
from tests.lit_entrodrop.data.conftest import DataModuleFactory, sentence

MODULE = '''
"""Fortunes: documents between lines with only %."""

from lit_entrodrop.data.file_formats.base import Record

SUFFIXES = (".fortune",)


def read_records(file):
    for number, text in enumerate(file.read_text().split("\\n%\\n"), start=1):
        yield Record(f"{file.path} fortune {number}", text if number % 2 else {"text": text})
'''


@pytest.fixture
def fortunes(tmp_path: Path) -> Iterator[Path]:
    """Add the format, and write a corpus in it."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = [sentence(Random(number), 20) for number in range(60)]
    (corpus / "a.fortune").write_text("\n%\n".join(texts))
    with added_module(file_formats, "fortune", MODULE, tmp_path, (supported_formats,)):
        yield corpus


def test_a_module_in_the_package_is_a_format(fortunes: Path, datamodule: DataModuleFactory) -> None:
    data = datamodule(corpus=str(fortunes), validation=0.2)
    data.setup()
    assert data.splits["train"].documents + data.splits["validation"].documents == 60
    (fortunes / "a.fortune").rename(fortunes / "a.other")
    with pytest.raises(ValueError, match=r"one of \.arrow, \.csv, \.fortune, .*\. Add one"):
        list_files(fortunes)


def test_help_lists_every_format() -> None:
    explained = getdoc(TextDataModule)
    assert explained is not None
    assert f"Path to a file ({', '.join(supported_formats())}) or" in explained
    assert "{suffixes}" not in explained
