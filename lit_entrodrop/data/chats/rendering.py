"""Render chats with the chat template of a tokenizer, which is untrusted code."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.encoded import Span
from lit_entrodrop.model.transformers_compat import render_with_generation_spans

MOST_SECONDS = 2  # of processor time, to render one chat

Rendered = TypeVar("Rendered")

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has a chat template and can locate the assistant's tokens.

    Raises:
        ValueError: If it cannot.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer {name!r} has no chat template: expected one, because the corpus has "
            "'messages'. Set data.chat_template, use an instruction-tuned model's tokenizer, or a "
            "'prompt'/'completion' or text corpus."
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
    rendered = _guard(
        lambda: tokenizer.apply_chat_template(
            chat.messages, tools=cast(Any, chat.tools), tokenize=False, add_generation_prompt=prompt
        ),
        tokenizer,
    )
    assert isinstance(rendered, str)
    return rendered


def render_marked(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[Span] | None]:
    """Render a chat, and return the characters between each pair of `{% generation %}` tags.

    The tags mark what the assistant generates; None instead of spans without such tags.
    """
    template = template_of(chat, tokenizer)
    if not _GENERATION_TAG.search(template):
        return render(chat, tokenizer), None
    return _guard(
        lambda: render_with_generation_spans(chat.messages, chat.tools, template, tokenizer),
        tokenizer,
    )


def _guard(call: Callable[[], Rendered], tokenizer: PreTrainedTokenizerBase) -> Rendered:
    try:
        with _time_limit():
            return call()
    # A template can fail in any way that Python can.
    except Exception as error:
        name = tokenizer.name_or_path
        message = str(error) or type(error).__name__
        raise ValueError(f"the chat template of {name!r} refuses the chat: {message}") from error


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise a TimeoutError after `MOST_SECONDS`; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _stop(*_: Any) -> None:
    raise TimeoutError(
        f"it did not end within {MOST_SECONDS} s of processor time. Use another chat template."
    )
