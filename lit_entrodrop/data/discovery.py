"""Discovery of plug-in modules: a new file in a package is found without a list to edit."""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def modules_with(attribute: str, package: str, path: Iterable[str]) -> list[Any]:
    """Import the modules of a package, and return those with an attribute, sorted by name.

    >>> import json
    >>> [module.__name__ for module in modules_with("JSONDecoder", "json", json.__path__)]
    ['json.decoder']
    """
    names = sorted(module.name for module in iter_modules(path))
    modules = (import_module(f"{package}.{name}") for name in names)
    return [module for module in modules if hasattr(module, attribute)]
