"""Which regularizers there are: our own by their files, those of other packages by entry points."""

import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import regularizers
from regularizers.base import Regularizer

GROUP = "lit_entrodrop.regularizers"


@cache
def own_regularizers() -> dict[str, type[Regularizer]]:
    """Return the regularizers of this package by name, in alphabetical order.

    They are the subclasses of :class:`~regularizers.base.Regularizer` that can be built from their
    defaults; what needs arguments serves as a base.

    >>> "EntroDrop" in own_regularizers()
    True
    """
    found: dict[str, type[Regularizer]] = {}
    for module_info in pkgutil.iter_modules(regularizers.__path__, "regularizers."):
        if module_info.ispkg:
            continue
        module = importlib.import_module(module_info.name)
        for name, member in inspect.getmembers(module, inspect.isclass):
            is_here = member.__module__ == module.__name__
            if is_here and issubclass(member, Regularizer) and _is_complete(member):
                found[name] = member
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Installed:
    """A regularizer of another package.

    Args:
        kind: its class.
        class_path: by which configs name it.
        package: the distribution that announces it.
        version: of the distribution.
    """

    kind: type[Regularizer]
    class_path: str
    package: str
    version: str


@dataclass(frozen=True)
class Installation:
    """What other packages announce.

    Args:
        regularizers: by name, in alphabetical order.
        problems: a sentence with a remedy for each that cannot be used.
    """

    regularizers: dict[str, Installed]
    problems: tuple[str, ...]


@cache
def installed_regularizers() -> Installation:
    """Import the regularizers that other packages announce as entry points.

    The group is ``lit_entrodrop.regularizers``, and an entry point bears the name of its class:
    ``LossTruncation = "acme.loss_truncation:LossTruncation"``. What is wrong with one never keeps
    the others from being found.

    >>> "EntroDrop" in installed_regularizers().regularizers
    False
    """
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry)))
    bearers = defaultdict(list, {name: ["lit-entrodrop"] for name in own_regularizers()})
    for entry in entries:
        bearers[entry.name].append(_package(entry))
    tried = [_load(entry, bearers[entry.name]) for entry in entries]
    found = {each.kind.__name__: each for each in tried if isinstance(each, Installed)}
    return Installation(found, tuple(each for each in tried if isinstance(each, str)))


def _load(entry: EntryPoint, bearers: Sequence[str]) -> Installed | str:
    announced = f"{_package(entry)} announces {entry.name} = {entry.value!r}"
    module, _, name = entry.value.partition(":")
    if name != entry.name:
        return (
            f"{announced}: expected the name of its class, as in Name = 'package.module:Name': "
            "ask its author to rename it; until then configs may name it by its full class path"
        )
    # Not even imported, so that the name stays unambiguous for the other.
    if len(bearers) > 1:
        return (
            f"{announced}: expected a name of its own, got one of {' and '.join(bearers)}: "
            f"configs may name it {module}.{name}"
        )
    try:
        kind = entry.load()
    except KeyboardInterrupt:
        raise
    # Whatever the code of strangers does, even to exit or to skip as a test, it ends here.
    except BaseException as error:
        return (
            f"{announced}: importing it raised {type(error).__name__}: {error}: "
            f"reinstall or remove {_package(entry)}"
        )
    if not _can_be_named(kind, name):
        return (
            f"{announced}: expected a subclass of regularizers.Regularizer of that name, whose "
            f"settings all have defaults, got {kind!r}: ask its author to correct it, or remove "
            f"{_package(entry)}"
        )
    assert entry.dist is not None, "metadata come with their distribution"
    return Installed(kind, f"{module}.{name}", entry.dist.name, entry.dist.version)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"


def _can_be_named(kind: object, name: str) -> bool:
    if not (inspect.isclass(kind) and issubclass(kind, Regularizer)):
        return False
    return kind.__name__ == name and _is_complete(kind)


def _is_complete(kind: type[Regularizer]) -> bool:
    signature = inspect.signature(kind)
    # A class without __init__ has that of nn.Module, which takes any.
    any_kind = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [each for each in signature.parameters.values() if each.kind not in any_kind]
    return kind is not Regularizer and all(each.default is not each.empty for each in named)
