"""Plain text, in which every token counts."""

from lit_entrodrop.data.documents import Kind
from lit_entrodrop.data.records.base import Row, text_in

NAME = "text"
REQUIRED = ("text",)
OPTIONAL = ()


def read(row: Row) -> tuple[Kind, str]:
    """Read the text.

    >>> read({"text": "Fever."})
    ('text', 'Fever.')
    """
    return "text", text_in(row, "text")
