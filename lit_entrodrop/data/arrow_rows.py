"""Rows of Arrow tables, which Parquet files and data sets of the hub contain."""

from collections.abc import Mapping
from typing import Any


def without_added_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the null entries of nested objects.

    Arrow gives all objects of a column the same keys, and null to those that an object lacks.

    >>> without_added_nulls({"call": {"city": "Rome", "zone": None}, "text": None})
    {'call': {'city': 'Rome'}, 'text': None}
    """
    return {column: _cleaned(value) for column, value in row.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(item) for key, item in value.items() if item is not None}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value
