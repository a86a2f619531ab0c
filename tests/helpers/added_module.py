"""A module that is added to a package, as if its file lay in the folder of the package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@contextmanager
def added_module(
    package: ModuleType, name: str, source: str, folder: Path, caches: tuple[Any, ...] = ()
) -> Iterator[None]:
    """Add a module for as long as the context lasts.

    Args:
        package: Package that finds its modules by itself.
        name: Name of the module.
        source: Text of the module.
        folder: Folder of the test, for the file.
        caches: Functions that remember which modules they have found.
    """
    place = folder / package.__name__
    place.mkdir()
    (place / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(place)])
        _clear(caches)
        yield
    sys.modules.pop(f"{package.__name__}.{name}", None)
    vars(package).pop(name, None)
    _clear(caches)


def _clear(caches: tuple[Any, ...]) -> None:
    for cached in caches:
        cached.cache_clear()
