"""Import the regularizers of this package, and those that other packages announce."""

import inspect
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint

from regularizers.base import Regularizer
from regularizers.sources import announcements, methods, package_of


@cache
def own_regularizers() -> dict[str, type[Regularizer]]:
    """Import the regularizers of this package; return them by name, in alphabetical order.

    >>> "EntroDrop" in own_regularizers()
    True
    """
    return {
        name: getattr(import_module(f"regularizers.{method.module}"), name)
        for name, method in methods().items()
    }


@dataclass(frozen=True)
class Installed:
    """A regularizer of another package.

    Args:
        kind: Class of the regularizer.
        class_path: Import path of the class, for configs.
        package: Name of the distribution that announces it.
        version: Version of the distribution.
    """

    kind: type[Regularizer]
    class_path: str
    package: str
    version: str


@dataclass(frozen=True)
class Installation:
    """Regularizers of other packages.

    Args:
        regularizers: Regularizers by name, in alphabetical order.
        problems: Error message, with a remedy, for each regularizer that cannot be used.
    """

    regularizers: dict[str, Installed]
    problems: tuple[str, ...]


@cache
def installed_regularizers() -> Installation:
    """Import the regularizers that other packages announce as entry points.

    A regularizer that cannot be imported does not affect the others.

    >>> "EntroDrop" in installed_regularizers().regularizers
    False
    """
    # Entry points with a problem are not imported, so every name has one meaning.
    tried = [problem or _load(entry) for entry, problem in announcements()]
    found = {each.kind.__name__: each for each in tried if isinstance(each, Installed)}
    return Installation(found, tuple(each for each in tried if isinstance(each, str)))


def _load(entry: EntryPoint) -> Installed | str:
    announced = f"{package_of(entry)} announces {entry.name} = {entry.value!r}"
    try:
        kind = entry.load()
    except KeyboardInterrupt:
        raise
    # Other packages may raise anything, including SystemExit and pytest's Skipped.
    except BaseException as error:
        return (
            f"{announced}: importing it raised {type(error).__name__}: {error}: "
            f"reinstall or remove {package_of(entry)}"
        )
    if not _can_be_named(kind, entry.name):
        return (
            f"{announced}: expected a subclass of regularizers.Regularizer of that name, whose "
            f"settings all have defaults, got {kind!r}: ask its author to correct it, or remove "
            f"{package_of(entry)}"
        )
    assert entry.dist is not None, "metadata belong to a distribution"
    class_path = entry.value.replace(":", ".")
    return Installed(kind, class_path, entry.dist.name, entry.dist.version)


def _can_be_named(kind: object, name: str) -> bool:
    if not (inspect.isclass(kind) and issubclass(kind, Regularizer)):
        return False
    return kind.__name__ == name and is_complete(kind)


def is_complete(kind: type[Regularizer]) -> bool:
    """Return whether a class can be built from its defaults alone.

    >>> is_complete(Regularizer)
    False
    """
    signature = inspect.signature(kind)
    # A class without __init__ inherits that of nn.Module, which accepts any arguments.
    any_kind = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [each for each in signature.parameters.values() if each.kind not in any_kind]
    return kind is not Regularizer and all(each.default is not each.empty for each in named)
