"""Chats in the format of OpenAI."""

from lit_entrodrop.data.chats.record import read_chat
from lit_entrodrop.data.documents import Kind
from lit_entrodrop.data.records.base import Row

NAME = "messages"
REQUIRED = ("messages",)
OPTIONAL = ("system", "tools", "functions")


def read(row: Row) -> tuple[Kind, str]:
    """Read a chat.

    >>> read({"messages": [{"role": "user", "content": "Why?"}]})
    ('messages', '[{"role": "user", "content": "Why?"}]')
    """
    return "messages", read_chat(row).to_json()
