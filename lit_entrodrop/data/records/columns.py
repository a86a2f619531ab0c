"""Own names of the columns of records."""

from collections.abc import Iterable, Mapping
from typing import Any

from lit_entrodrop.data.reading_options import ReadingOptions


def check_columns(columns: Mapping[str, str], known: Iterable[str]) -> None:
    """Check that own names belong to known columns, and each to one of them.

    Raises:
        ValueError: If they do not.

    >>> check_columns({"prompt": "question"}, ["prompt", "completion"])
    """
    known = sorted(set(known))
    for column, name in columns.items():
        if column not in known:
            raise ValueError(
                f"data.columns: expected names for {', '.join(known)}, got one for {column!r}. "
                f"Write the standard name first, for example {{prompt: {column}}}."
            )
        if (others := [other for other, own in columns.items() if own == name]) != [column]:
            raise ValueError(
                f"data.columns: expected a column of its own for each name, got {name!r} for "
                f"{' and '.join(map(repr, others))}. Keep one."
            )


def rename(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a record that are not null, by standard column.

    >>> rename({"question": "Why?", "prompt": 3, "id": None}, {"prompt": "question"})
    {'prompt': 'Why?'}
    """
    present = {name: value for name, value in row.items() if value is not None}
    if not columns:
        return present
    own = {column: present[name] for column, name in columns.items() if name in present}
    replaced = {*columns, *columns.values()}
    return {**{name: value for name, value in present.items() if name not in replaced}, **own}


def check_columns_seen(options: ReadingOptions) -> None:
    """Check that each column of `data.columns` is in some record.

    Raises:
        ValueError: If no record has one.
    """
    for column, name in options.own_names.items():
        if name not in options.seen:
            raise ValueError(
                f"data.columns: expected a column {name!r} for {column!r}, but no record has it. "
                f"Their columns are {', '.join(sorted(options.seen)) or 'none'}. Correct the name."
            )
