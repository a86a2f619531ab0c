"""Tokens at which generation stops."""

from collections.abc import Iterator
from contextlib import suppress

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat, Message
from lit_entrodrop.data.chats.rendering import render_marked
from lit_entrodrop.data.chats.turns import locate_turns
from lit_entrodrop.data.tokens.special_tokens import any_of, special_tokens

_QUESTION: Message = {"role": "user", "content": "a"}
_ANSWER: Message = {"role": "assistant", "content": "b"}
_FUNCTION = {"name": "f", "description": "c", "parameters": {"type": "object", "properties": {}}}
_CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}
# An answer, a tool call and an earlier answer may end in different ways.
_CHATS = (
    Chat([_QUESTION, _ANSWER, _QUESTION, {**_ANSWER, "thinking": "c", "reasoning_content": "c"}]),
    Chat(
        [_QUESTION, {"role": "assistant", "content": "", "tool_calls": [_CALL]}],
        [{"type": "function", "function": _FUNCTION}],
    ),
)


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end documents and turns in training, where generation stops.

    These are EOS and the special tokens that end an assistant's turn in the chat template, if any.
    """
    special, turns = special_tokens(tokenizer), list(_turns(tokenizer))
    ends = {token for turn in turns for token in special if turn.endswith(token)}
    # Some templates write such a token also within a turn, for example after reasoning.
    marks = any_of(special)
    within = {
        end for end in ends for turn in turns if marks.sub("", turn.partition(end)[2]).strip()
    }
    stops = [tokenizer.eos_token, *sorted(ends - within)]
    ids = tokenizer.convert_tokens_to_ids([token for token in dict.fromkeys(stops) if token])
    assert isinstance(ids, list)
    return ids


def _turns(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for chat in _CHATS:
        # There may be no template, or one that refuses tool calls.
        with suppress(ValueError):
            text, marked = render_marked(chat, tokenizer)
            for span in locate_turns(chat, text, marked, tokenizer).values():
                yield text[slice(*span)].rstrip()
