"""YAML without repeated keys; other readers keep the last one silently."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lit_entrodrop.runtime.shown_text import one_line

MAX_NODES = 1_000_000


def load_yaml(text: str) -> Any:
    """Return the content of YAML text.

    Raises:
        yaml.YAMLError: If the text is no YAML, or a mapping has a key twice.

    >>> load_yaml("a: {b: 1}")
    {'a': {'b': 1}}
    """
    refuse_repeated_keys(text)
    return yaml.safe_load(text)


def read_yaml(file: Path, place: str) -> Any:
    """Return the content of a YAML file; errors name it by ``place``.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return load_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{place}: expected YAML in {file}, got something else: {one_line(error)}"
        ) from error


def refuse_repeated_keys(text: str) -> None:
    r"""Refuse YAML text in which a mapping has a key twice, or aliases multiply.

    Raises:
        yaml.YAMLError: If there is one; the message has its line.

    >>> refuse_repeated_keys("a: 1\nb: 2\na: 3")
    Traceback (most recent call last):
    ...
    yaml.constructor.ConstructorError: expected each key once, got 'a' again
      in "<unicode string>", line 3, column 1:
        a: 3
        ^
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if _count(root, {}) > MAX_NODES:
        raise yaml.YAMLError(f"expected at most {MAX_NODES} values, got more by repeated aliases")
    for node in _mappings(root):
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected each key once, got {key.value!r} again", key.start_mark
                )
            seen.add(name)


def _count(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Count the values of a node, those of an alias each time."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_NODES  # of a node within itself
        pairs = isinstance(node, yaml.MappingNode)
        children = [value for _, value in node.value] if pairs else node.value
        known[id(node)] = 1 + sum(_count(each, known) for each in children)
    return known[id(node)]


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    # Each node once, however often an alias repeats it.
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [each for pair in node.value for each in pair]
        else:
            waiting += node.value
