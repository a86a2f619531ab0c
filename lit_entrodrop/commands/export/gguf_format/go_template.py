"""Chat templates as Go templates, which Ollama renders."""

import re
from contextlib import suppress
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.rendering import render

_ROLES = {"s": "system", "u": "user", "a": "assistant"}
_MORE = re.compile("tool|think|reason")
# Chats on which a translated template must agree.
_CHATS = ("u", "su", "uau", "suau", "suauau")


@dataclass(frozen=True)
class GoTemplate:
    """A template, and the system prompt of chats that have none; empty for no prompt."""

    text: str
    system: str = ""


@dataclass(frozen=True)
class _Turns:
    """Text at the start and the end of a prompt, and before and after the content of each role."""

    start: str
    around: dict[str, tuple[str, str]]
    end: str
    system: str = ""

    def render(self, chat: Chat) -> str:
        contents = [(message["role"], message["content"]) for message in chat.messages]
        if self.system and contents[0][0] != "system":
            contents.insert(0, ("system", self.system))
        turns = (content.join(self.around[role]) for role, content in contents)
        return f"{self.start}{''.join(turns)}{self.end}"


def go_template(tokenizer: PreTrainedTokenizerBase, adds_bos: bool) -> GoTemplate | None:
    """Translate a chat template that has text before and after the content of each role, no more.

    The text is found by rendering chats. The translation must render other chats, with and without
    a system prompt, as the chat template does.

    Args:
        tokenizer: Tokenizer with the chat template.
        adds_bos: Whether BOS is added to every prompt, and must not be in the template.

    Returns:
        The template; None if there is more in the chat template, such as tools or reasoning.
    """
    if _MORE.search(tokenizer.get_chat_template()):
        return None
    with suppress(ValueError, KeyError):
        turns = _turns(tokenizer)
        for roles in _CHATS:
            if "s" in roles and "system" not in turns.around:
                continue
            if turns.render(_chat(roles)) != render(_chat(roles), tokenizer, prompt=True):
                return None
        start = turns.start
        if adds_bos:
            start = start.removeprefix(str(tokenizer.bos_token))
        cases = (
            f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}{{{{ '
            for role, (before, after) in turns.around.items()
        )
        loop = f"{{{{ range .Messages }}}}{{{{ {'else '.join(cases)}end }}}}{{{{ end }}}}"
        texts = "".join((start, turns.end, turns.system, *map("".join, turns.around.values())))
        if not any(mark in texts for mark in ("{{", "}}", '"""')):
            return GoTemplate(f"{start}{loop}{turns.end}", turns.system)
    return None


def _turns(tokenizer: PreTrainedTokenizerBase) -> _Turns:
    before, answering, asking, _, after_assistant = _texts("uaua", tokenizer)
    _, after_user = _texts("u", tokenizer)
    _, prompted = _texts("u", tokenizer, prompt=True)
    before_user = _without_start(asking, after_assistant)
    start, system = _without_end(before, before_user), ""
    around = {
        "user": (before_user, after_user),
        "assistant": (_without_start(answering, after_user), after_assistant),
    }
    with suppress(ValueError):  # a template may refuse system prompts
        before_system, between, _ = _texts("su", tokenizer)
        after_system = _without_end(between, before_user)
        if len(start) > len(before_system):
            # The template has a system prompt for chats without one.
            system = _without_start(_without_end(start, after_system), before_system)
            start = ""
        around["system"] = (_without_start(before_system, start), after_system)
    return _Turns(start, around, _without_start(prompted, after_user), system)


def _chat(roles: str) -> Chat:
    return Chat([{"role": _ROLES[role], "content": f"({n})"} for n, role in enumerate(roles)])


def _texts(roles: str, tokenizer: PreTrainedTokenizerBase, prompt: bool = False) -> list[str]:
    """Return the texts before, between and after the contents of a rendered chat."""
    chat = _chat(roles)
    rest, texts = render(chat, tokenizer, prompt), []
    for message in chat.messages:
        text, found, rest = rest.partition(message["content"])
        if not found:
            raise ValueError("a content is missing")
        texts.append(text)
    return [*texts, rest]


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError("the texts of roles differ between turns")
    return text.removeprefix(start)


def _without_end(text: str, end: str) -> str:
    return _without_start(text[::-1], end[::-1])[::-1]
