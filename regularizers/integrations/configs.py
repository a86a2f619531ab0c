"""Regularizers built from settings, as in the YAML files of lit-entrodrop."""

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, get_args

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum
from regularizers.discovery import installed_regularizers

Settings = Mapping[str, Any]
#: A regularizer, or its settings: ``class_path`` and ``init_args``.
Given = Regularizer | Settings
# Types of settings that are checked; others are left to the class.
CHECKED = {bool, int, float, str, NoneType, Curriculum}


def build_regularizers(given: Iterable[Given]) -> list[Regularizer]:
    """Return regularizers, and build those that are given by their settings.

    Args:
        given: Regularizers, or mappings with ``class_path`` and ``init_args``. A class of
            ``regularizers``, or one that an installed package announces, may be named without the
            package. Curricula are given in the same way.

    Raises:
        ValueError: If settings do not describe a regularizer.

    >>> linear = {"class_path": "Linear", "init_args": {"end": 0.8}}
    >>> [chosen] = build_regularizers(
    ...     [{"class_path": "EntroDrop", "init_args": {"curriculum": linear}}]
    ... )
    >>> chosen.curriculum(1.0)
    0.8
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"regularizers: expected a list, got {given!r}: write [regularizer]")
    return [_regularizer(each) for each in given]


def _regularizer(given: Given) -> Regularizer:
    if isinstance(given, Regularizer):
        return given
    built = _build(given, "regularizers") if isinstance(given, Mapping) else given
    if not isinstance(built, Regularizer):
        raise ValueError(
            f"regularizers: expected a regularizer, or class_path and init_args, got {given!r}"
        )
    return built


def _build(settings: Settings, place: str) -> Any:
    path = settings.get("class_path")
    arguments = settings.get("init_args") or {}
    unknown = sorted(set(settings) - {"class_path", "init_args"})
    if not isinstance(path, str) or not isinstance(arguments, Mapping) or unknown:
        raise ValueError(
            f"{place}: expected the keys class_path and init_args, got {dict(settings)!r}"
        )
    kind = _class_of(path, place)
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    signature = inspect.signature(kind).parameters
    accepted = {name: each for name, each in signature.items() if each.kind in named}
    if wrong := sorted(set(arguments) - set(accepted)):
        raise ValueError(
            f"{place}: {path} has no setting {', '.join(wrong)}: use one of {', '.join(accepted)}"
        )
    values = {
        name: _build(value, f"{place}.{name}") if isinstance(value, Mapping) else value
        for name, value in arguments.items()
    }
    for name, each in accepted.items():
        if name not in values and each.default is each.empty:
            raise ValueError(f"{place}: {path} needs the setting {name}: add it to init_args")
        if name in values and not _is_a(values[name], each.annotation):
            raise ValueError(
                f"{place}: {path}.{name}: expected {inspect.formatannotation(each.annotation)}, "
                f"got {values[name]!r}: change it; YAML 1.1 reads 1e-3 as text, 1.0e-3 as a number"
            )
    return kind(**values)


def _is_a(value: Any, annotation: Any) -> bool:
    """Return whether a value has an annotated type; annotations of other kinds are not checked."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not CHECKED.issuperset(kinds):
        return True
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _class_of(path: str, place: str) -> type[Regularizer | Curriculum]:
    module, _, name = path.rpartition(".")
    if not module and path in installed_regularizers().regularizers:
        return installed_regularizers().regularizers[path].kind
    try:
        found = getattr(import_module(module or "regularizers"), name, None)
    except (ImportError, TypeError) as error:  # a TypeError if the path is relative
        raise ValueError(f"{place}: cannot import {path!r}: {error}") from error
    # Checked before the call: a config must not run any function.
    if not (inspect.isclass(found) and issubclass(found, Regularizer | Curriculum)):
        raise ValueError(
            f"{place}: expected the class path of a regularizer or a curriculum, got {path!r}"
        )
    return found
