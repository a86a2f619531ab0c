"""A chat template that replaces that of the tokenizer."""

import json
import re
from pathlib import Path

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.rendering import ConfiguredTemplate, render

_TAG = re.compile(r"\{[{%]")
_EXPECTED = "data.chat_template: expected the path to a .jinja file, or the text of a template, got"


def read_chat_template(given: str | None) -> str | None:
    """Return the text of a chat template.

    Args:
        given: Path to a file, or the text, which has a Jinja tag; null for none.

    Raises:
        ValueError: If there is no such file, or it is no template.

    >>> read_chat_template("{{ messages }}")
    '{{ messages }}'
    """
    if given is None or _TAG.search(given):
        return given
    try:
        text = Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"{_EXPECTED} {given!r}: {reason}. Correct the path.") from error
    if not _TAG.search(text) or _is_json(text):
        found = "a file of JSON" if _is_json(text) else "a file without a Jinja tag"
        raise ValueError(f"{_EXPECTED} {given!r}, {found}. Name a file with the template alone.")
    return text


def set_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """Replace the chat template of a tokenizer, unless the template is null.

    Raises:
        ValueError: If it is no valid Jinja template.
    """
    if template is None:
        return
    tokenizer.chat_template = ConfiguredTemplate(template)
    try:
        render(Chat([{"role": "user", "content": "a"}]), tokenizer)
    except ValueError as refusal:
        error = refusal.__cause__
        # A template may refuse a chat that the corpus does not have.
        if isinstance(error, TemplateSyntaxError):
            raise ValueError(
                f"data.chat_template: expected a Jinja template, got an error in line "
                f"{error.lineno}: {error.message} Correct it."
            ) from error


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
