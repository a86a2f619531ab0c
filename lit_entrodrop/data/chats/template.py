"""A chat template that replaces that of the tokenizer."""

from pathlib import Path

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.rendering import render

_EXPECTED = "data.chat_template: expected the path to a .jinja file, or the text of a template, got"


def read_chat_template(given: str | None) -> str | None:
    """Return the text of a chat template.

    Args:
        given: Path to a file, or the text, which has a brace; null for none.

    Raises:
        ValueError: If there is no such file, or it is no text.

    >>> read_chat_template("{{ messages }}")
    '{{ messages }}'
    """
    if given is None or "{" in given:
        return given
    try:
        text = Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"{_EXPECTED} {given!r}: {reason}. Correct the path.") from error
    if "{" not in text:
        raise ValueError(f"{_EXPECTED} {given!r}, a file without a Jinja tag. Name another file.")
    return text


def set_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """Replace the chat template of a tokenizer, unless the template is null.

    Raises:
        ValueError: If it is no valid Jinja template.
    """
    if template is None:
        return
    tokenizer.chat_template = template
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
