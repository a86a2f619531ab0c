"""Formats of the records of a corpus, one module each.

To add a format, add a module with `NAME`, `REQUIRED`, `OPTIONAL` and `read`, as `RecordFormat`
describes, and its test. The module is found by its presence; error messages and the help text name
it.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from lit_entrodrop.data.discovery import modules_with
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records.base import RecordFormat, Row
from lit_entrodrop.data.records.columns import check_columns, check_columns_seen, rename
from lit_entrodrop.data.records.unsupported import (
    advice_for,
    refuse_other_training,
    refuse_unread,
)

__all__ = [
    "RecordFormat",
    "check_columns_seen",
    "check_format_settings",
    "document_from_row",
    "record_formats",
]

AUTO = "auto"
TEXT = "text"


@cache
def record_formats() -> dict[str, RecordFormat]:
    """Return the formats of records by name, sorted.

    >>> list(record_formats())
    ['alpaca', 'messages', 'prompt_completion', 'segments', 'sharegpt', 'text']
    """
    formats = modules_with("NAME", __name__, __path__)
    return dict(sorted((module.NAME, module) for module in formats))


def check_format_settings(options: ReadingOptions) -> None:
    """Check the settings `data.format` and `data.columns`.

    Raises:
        ValueError: If one names a format or a column that does not exist.
    """
    formats = record_formats()
    if options.format not in (AUTO, *formats):
        raise ValueError(
            f"data.format: expected one of {', '.join([AUTO, *formats])}, got {options.format!r}."
        )
    known = (name for each in formats.values() for name in (*each.REQUIRED, *each.OPTIONAL))
    check_columns(options.own_names, known)


def document_from_row(row: Mapping[str, Any], options: ReadingOptions, where: str) -> Document:
    """Turn a record into a document; errors begin with `where`.

    The columns of a record determine its format, unless `data.format` names one. Other columns are
    ignored. A column that is null counts as absent.

    Raises:
        ValueError: If the record fits no format or several, or has what the loss cannot learn.

    >>> document_from_row({"text": "Fever."}, ReadingOptions(), "notes.jsonl line 1")
    Document(kind='text', content='Fever.')
    """
    content = ""
    if options.own_names:
        options.seen.update(row)
    try:
        present = rename(row, options.own_names)
        record_format = _format_of(present, row, options)
        if record_format.NAME != TEXT:
            refuse_unread(present, (*record_format.REQUIRED, *record_format.OPTIONAL))
        kind, content = record_format.read(present)
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: expected valid Unicode, got the lone surrogate "
            f"{content[error.start]!a}. Write the full character or remove the row."
        ) from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}{_describe(options.own_names)}") from error
    return Document(kind, content, where, record_format.NAME)


def _format_of(present: Row, row: Mapping[str, Any], options: ReadingOptions) -> RecordFormat:
    """Return the format of a record."""
    fitting: Sequence[RecordFormat] = fitting_formats(tuple(present), options.format)
    if len(fitting) > 1:
        # A table has every column in each row, perhaps without text.
        fitting = [each for each in fitting if not _is_blank(present, each)] or fitting[:1]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [each.NAME for each in fitting]
        raise ValueError(
            f"expected a record of one format, got the columns of {' and '.join(names)}. Set "
            "data.format to one of them, or remove the columns of the others."
        )
    required = [each.REQUIRED for each in _possible_formats(options.format)]
    wanted = ", or ".join(" and ".join(map(repr, columns)) for columns in required)
    got = sorted(name if row[name] is not None else f"{name} (null)" for name in row)
    own = (options.own_names.get(name, name) for columns in required for name in columns)
    null = [repr(name) for name in own if name in row and row[name] is None]
    others = [each.NAME for each in fitting_formats(tuple(present), AUTO)]
    if null:
        remedy = f"Fill {' or '.join(null)}, or remove the row."
    elif others:
        remedy = f"Set data.format to {' or '.join([AUTO, *others])}, or remove the row."
    else:
        remedy = advice_for(present)
    raise ValueError(f"expected the columns {wanted}, got {got}. {remedy}")


# Cached, as the records of a file have few sets of columns.
@lru_cache
def fitting_formats(columns: tuple[str, ...], format: str) -> tuple[RecordFormat, ...]:
    """Return the formats that have a set of columns.

    Raises:
        ValueError: If the columns are those of another way of training.
    """
    if format != TEXT:
        refuse_other_training(columns)
    possible = _possible_formats(format)
    return tuple(each for each in possible if set(each.REQUIRED) <= set(columns))


def _possible_formats(format: str) -> Sequence[RecordFormat]:
    formats = record_formats()
    return list(formats.values()) if format == AUTO else [formats[format]]


def _is_blank(row: Row, record_format: RecordFormat) -> bool:
    values = (row[column] for column in record_format.REQUIRED)
    return not any(value.strip() if isinstance(value, str) else value for value in values)


def _describe(columns: Mapping[str, str]) -> str:
    """Describe own names, for errors about standard columns."""
    own = [f"{name!r} as {column!r}" for column, name in columns.items()]
    return f" (data.columns reads {', '.join(own)})" if own else ""
