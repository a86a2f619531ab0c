"""The contract of a format of records."""

from collections.abc import Mapping
from typing import Any, Protocol

from lit_entrodrop.data.documents import Kind

Row = Mapping[str, Any]  # the values of a record that are not null, by standard column


class RecordFormat(Protocol):
    """A module that reads records of one format.

    Attributes:
        NAME: Name of the format, a value of `data.format`.
        REQUIRED: Standard columns that a record of this format has.
        OPTIONAL: Further standard columns that it may have.
    """

    NAME: str
    REQUIRED: tuple[str, ...]
    OPTIONAL: tuple[str, ...]

    @staticmethod
    def read(row: Row) -> tuple[Kind, str]:
        """Return the kind and the content of the document of a record.

        Raises:
            ValueError: If a column does not have what the format expects.
        """
        ...


def text_in(row: Row, column: str) -> str:
    """Return the text of a column; empty text without the column.

    Raises:
        ValueError: If the column has another type.

    >>> text_in({"input": "1 2"}, "input"), text_in({}, "input")
    ('1 2', '')
    """
    value = row.get(column, "")
    if isinstance(value, str):
        return value
    raise ValueError(
        f"expected text in column {column!r}, got {type(value).__name__}. Convert it to a string."
    )
