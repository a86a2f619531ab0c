"""Files of installed packages, and clean-up of their text."""

import html
import importlib.util
import re
from pathlib import Path


def package_dir(module: str) -> Path:
    """Locate the folder of an installed package without importing it, so that no code of it runs.

    Args:
        module: Top-level import name.

    Returns:
        Path to the package's folder.

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
    r"""Replace every run of white space by one space.

    Args:
        text: Any text.

    Returns:
        The text on one line.

    >>> squeeze(" a\n  b ")
    'a b'
    """
    return " ".join(text.split())


def strip_tags(text: str) -> str:
    """Turn a fragment of HTML into plain text on one line.

    Args:
        text: Fragment of HTML without scripts or comments.

    Returns:
        The text between the tags, entities decoded.

    >>> strip_tags("<p>War &amp; <b>peace</b></p>")
    'War & peace'
    """
    return squeeze(html.unescape(re.sub(r"<[^>]+>", " ", text)))
