"""Files of installed packages, and clean-up of their text."""

import html
import importlib.util
import re
from pathlib import Path


def package_dir(module: str) -> Path:
    """Locate the folder of an installed package without importing it, so that no code of it runs.

    Raises:
        FileNotFoundError: If the package is not installed.

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
