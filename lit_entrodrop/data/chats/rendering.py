"""Render chats with the chat template of a tokenizer, which is untrusted code."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar, cast

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat, Message
from lit_entrodrop.data.tokens.encoded import Span
from lit_entrodrop.model.transformers_compat import render_with_generation_spans
from lit_entrodrop.runtime.limits import limited
from lit_entrodrop.runtime.shown_text import one_line

Rendered = TypeVar("Rendered")

_PROBE = "text"
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ConfiguredTemplate(str):
    """Text of a template that `data.chat_template` has set."""


def name_of_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of a chat template in error messages."""
    if isinstance(tokenizer.chat_template, ConfiguredTemplate):
        return "data.chat_template"
    return f"the chat template of {tokenizer.name_or_path!r}"


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has a chat template and can locate the assistant's tokens.

    Raises:
        ValueError: If it cannot.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer {name!r} has no chat template: expected one for chats. Set "
            "data.chat_template (docs/chats.md has an example), use an instruction-tuned model's "
            "tokenizer, or write 'prompt' and 'completion' or text."
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer {name!r} is not a fast tokenizer: expected one, because only fast "
            "tokenizers map tokens to characters. Convert it to a tokenizer.json."
        )


def template_of(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja template of a chat; a tokenizer may have a separate one for tools."""
    check_chat_template(tokenizer)
    return tokenizer.get_chat_template(tools=chat.tools)


def render(chat: Chat, tokenizer: PreTrainedTokenizerBase, prompt: bool = False) -> str:
    """Render a chat as text.

    Args:
        chat: The chat.
        tokenizer: Tokenizer with the template.
        prompt: Whether to end with the start of an assistant's turn, as at inference.

    Raises:
        ValueError: If the template refuses the chat, fails, or does not end.
    """
    messages = _messages(chat, tokenizer)
    return _guard(lambda: _apply(messages, chat.tools, tokenizer, prompt), tokenizer)


def render_marked(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[Span] | None]:
    """Render a chat, and return the characters between each pair of `{% generation %}` tags.

    The tags mark what the assistant generates; None instead of spans without such tags.
    """
    template = template_of(chat, tokenizer)
    if not _GENERATION_TAG.search(template):
        return render(chat, tokenizer), None
    messages = _messages(chat, tokenizer)
    return _guard(
        lambda: render_with_generation_spans(messages, chat.tools, template, tokenizer), tokenizer
    )


def _messages(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> list[Message]:
    """Return the messages of a chat as its template expects them."""
    if not _wants_parts(template_of(chat, tokenizer), tokenizer):
        return chat.messages
    return [{**message, "content": _parts(message["content"])} for message in chat.messages]


def _apply(
    messages: list[Message],
    tools: list[dict[str, Any]] | None,
    tokenizer: PreTrainedTokenizerBase,
    prompt: bool = False,
) -> str:
    rendered = tokenizer.apply_chat_template(
        messages, tools=cast(Any, tools), tokenize=False, add_generation_prompt=prompt
    )
    assert isinstance(rendered, str)
    return rendered


def _guard(call: Callable[[], Rendered], tokenizer: PreTrainedTokenizerBase) -> Rendered:
    try:
        with limited("Use another chat template."):
            return call()
    # A template can fail in any way that Python can.
    except Exception as error:
        message = one_line(error) or type(error).__name__
        raise ValueError(f"{name_of_template(tokenizer)} refuses the chat: {message}") from error


@lru_cache(maxsize=8)
def _wants_parts(template: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a template writes a text only in a list of parts, as in vision models."""

    def writes(content: object) -> bool:
        with suppress(ValueError):
            message = {"role": "user", "content": content}
            text = _guard(lambda: _apply([message], None, tokenizer), tokenizer)
            return _PROBE in text
        return False

    return not writes(_PROBE) and writes(_parts(_PROBE))


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
