"""Shapes of the records of a corpus, one module each.

To add a shape, add a module with `SHAPE`, `REQUIRED`, `OPTIONAL` and `read`, as `Shape` describes,
and its test. The module is found by its presence; error messages and the help text name it.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from lit_entrodrop.data.discovery import modules_with
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.reading import Reading
from lit_entrodrop.data.records.base import Row, Shape
from lit_entrodrop.data.records.columns import check_columns, check_columns_seen, rename
from lit_entrodrop.data.records.unsupported import (
    advice_for,
    refuse_other_training,
    refuse_unread,
)

__all__ = ["Shape", "check_columns_seen", "check_shape", "document_from_row", "supported_shapes"]

AUTO = "auto"
TEXT = "text"


@cache
def supported_shapes() -> dict[str, Shape]:
    """Return the shapes of records by name, sorted.

    >>> list(supported_shapes())
    ['alpaca', 'messages', 'prompt_completion', 'segments', 'sharegpt', 'text']
    """
    shapes = modules_with("SHAPE", __name__, __path__)
    return dict(sorted((module.SHAPE, module) for module in shapes))


def check_shape(reading: Reading) -> None:
    """Check the settings `data.format` and `data.columns`.

    Raises:
        ValueError: If one names a shape or a column that does not exist.
    """
    shapes = supported_shapes()
    if reading.format not in (AUTO, *shapes):
        raise ValueError(
            f"data.format: expected one of {', '.join([AUTO, *shapes])}, got {reading.format!r}."
        )
    known = (each for shape in shapes.values() for each in (*shape.REQUIRED, *shape.OPTIONAL))
    check_columns(reading.own_names, known)


def document_from_row(row: Mapping[str, Any], reading: Reading, where: str) -> Document:
    """Turn a record into a document; errors begin with `where`.

    The columns of a record determine its shape, unless `data.format` names one. Other columns are
    ignored. A column that is null counts as absent.

    Raises:
        ValueError: If the record fits no shape or several, or has what the loss cannot learn.

    >>> document_from_row({"text": "Fever."}, Reading(), "notes.jsonl line 1")
    Document(kind='text', content='Fever.')
    """
    content = ""
    if reading.own_names:
        reading.seen.update(row)
    try:
        present = rename(row, reading.own_names)
        shape = _shape_of(present, row, reading)
        if shape.SHAPE != TEXT:
            refuse_unread(present, (*shape.REQUIRED, *shape.OPTIONAL))
        kind, content = shape.read(present)
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: expected valid Unicode, got the lone surrogate "
            f"{content[error.start]!a}. Write the full character or remove the row."
        ) from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}{_describe(reading.own_names)}") from error
    return Document(kind, content, where, shape.SHAPE)


def _shape_of(present: Row, row: Mapping[str, Any], reading: Reading) -> Shape:
    """Return the shape of a record."""
    fitting: Sequence[Shape] = fitting_shapes(tuple(present), reading.format)
    if len(fitting) > 1:
        # A table has every column in each row, perhaps without text.
        fitting = [shape for shape in fitting if not _is_blank(present, shape)] or fitting[:1]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [shape.SHAPE for shape in fitting]
        raise ValueError(
            f"expected a record of one format, got the columns of {' and '.join(names)}. Set "
            "data.format to one of them, or remove the columns of the others."
        )
    required = [shape.REQUIRED for shape in _possible_shapes(reading.format)]
    wanted = ", or ".join(" and ".join(map(repr, columns)) for columns in required)
    got = sorted(name if row[name] is not None else f"{name} (null)" for name in row)
    own = (reading.own_names.get(name, name) for columns in required for name in columns)
    null = [repr(name) for name in own if name in row and row[name] is None]
    others = [shape.SHAPE for shape in fitting_shapes(tuple(present), AUTO)]
    if null:
        remedy = f"Fill {' or '.join(null)}, or remove the row."
    elif others:
        remedy = f"Set data.format to {' or '.join([AUTO, *others])}, or remove the row."
    else:
        remedy = advice_for(present)
    raise ValueError(f"expected the columns {wanted}, got {got}. {remedy}")


# Cached, as the records of a file have few sets of columns.
@lru_cache
def fitting_shapes(columns: tuple[str, ...], format: str) -> tuple[Shape, ...]:
    """Return the shapes that have a set of columns.

    Raises:
        ValueError: If the columns are those of another way of training.
    """
    if format != TEXT:
        refuse_other_training(columns)
    possible = _possible_shapes(format)
    return tuple(shape for shape in possible if set(shape.REQUIRED) <= set(columns))


def _possible_shapes(format: str) -> Sequence[Shape]:
    shapes = supported_shapes()
    return list(shapes.values()) if format == AUTO else [shapes[format]]


def _is_blank(row: Row, shape: Shape) -> bool:
    values = (row[column] for column in shape.REQUIRED)
    return not any(value.strip() if isinstance(value, str) else value for value in values)


def _describe(columns: Mapping[str, str]) -> str:
    """Describe own names, for errors about standard columns."""
    own = [f"{name!r} as {column!r}" for column, name in columns.items()]
    return f" (data.columns reads {', '.join(own)})" if own else ""
