"""Rows of Arrow tables, which Parquet and Arrow files and datasets of the hub contain."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ROWS_AT_A_TIME = 100


def read_rows(schema: Any, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow batches or tables as Python objects, a few at a time.

    Arrow gives all objects of a column the same keys, and null to those that an object lacks: null
    entries of nested objects are removed. Values of Arrow's JSON type are parsed.

    Args:
        schema: Schema of the batches, of PyArrow.
        batches: Record batches or tables of PyArrow.

    >>> import pyarrow
    >>> table = pyarrow.Table.from_pylist([{"call": {"city": "Rome"}}, {"call": {"zone": 1}}])
    >>> list(read_rows(table.schema, [table]))
    [{'call': {'city': 'Rome'}}, {'call': {'zone': 1}}]
    """
    restorers = {field.name: restore for field in schema if (restore := _restorer(field.type))}
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
            for row in batch.slice(start, ROWS_AT_A_TIME).to_pylist():
                for name, restore in restorers.items():
                    row[name] = None if row[name] is None else restore(row[name])
                yield row


def _restorer(kind: Any) -> Callable[[Any], Any] | None:
    """Return the function that restores values of an Arrow type; None if there is nothing to do."""
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import types

    if isinstance(kind, pyarrow.JsonType):
        return json.loads
    if types.is_struct(kind):
        restorers = {field.name: _restorer(field.type) for field in kind}
        return lambda entries: {
            key: restore(value) if (restore := restorers[key]) else value
            for key, value in entries.items()
            if value is not None
        }
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        restore_item = _restorer(kind.value_type)
        return restore_item and (
            lambda items: [None if item is None else restore_item(item) for item in items]
        )
    return None
