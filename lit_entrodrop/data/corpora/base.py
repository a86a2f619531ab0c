"""The contract of a named corpus, and access to the files of installed packages."""

import html
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Corpus:
    """A named corpus.

    Args:
        name: Name in a configuration, after `registry:`.
        package: Package with the text.
        read: Function that returns the documents, or raises FileNotFoundError.
        installer: Command that installs the package.
    """

    name: str
    package: str
    read: Callable[[], list[str]]
    installer: str = "pip install"


def package_dir(module: str) -> Path:
    """Locate the folder of an installed package without importing it, so that no code of it runs.

    >>> package_dir("json").name
    'json'
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {module!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def squeeze(text: str) -> str:
    """Replace every run of white space by one space.

    >>> squeeze(" a  b ")
    'a b'
    """
    return " ".join(text.split())


def strip_tags(text: str) -> str:
    """Turn a fragment of HTML without scripts or comments into plain text on one line.

    >>> strip_tags("<p>War &amp; <b>peace</b></p>")
    'War & peace'
    """
    return squeeze(html.unescape(re.sub(r"<[^>]+>", " ", text)))
