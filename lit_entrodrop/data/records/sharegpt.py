"""Chats in the format of ShareGPT."""

from lit_entrodrop.data.chats.record import read_chat
from lit_entrodrop.data.documents import Kind
from lit_entrodrop.data.records.base import Row

NAME = "sharegpt"
REQUIRED = ("conversations",)
OPTIONAL = ("system", "tools", "functions")


def read(row: Row) -> tuple[Kind, str]:
    """Read a chat.

    >>> read({"conversations": [{"from": "human", "value": "Why?"}]})
    ('messages', '[{"role": "user", "content": "Why?"}]')
    """
    return "messages", read_chat(row, "conversations").to_json()
