"""Which regularizers there are: each is found in its own file, so that there is no list to keep."""

import importlib
import inspect
import pkgutil
from functools import cache

import regularizers
from regularizers.base import Regularizer


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


def _is_complete(kind: type[Regularizer]) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    return kind is not Regularizer and all(each.default is not each.empty for each in parameters)
