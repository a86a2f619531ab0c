"""Tokens of prompts and choices, as training has them."""

import json
from itertools import compress

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import Chat, Message
from lit_entrodrop.data.chats.rendering import render, template_of
from lit_entrodrop.data.chats.roles import with_known_roles
from lit_entrodrop.data.tokens.encoded import Encoded
from lit_entrodrop.data.tokens.text_encoding import encode_completion, with_one_bos
from lit_entrodrop.evaluation.task.items import Prompt


def encode_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a prompt: of a text as before a completion, of a chat as rendered.

    Raises:
        ValueError: If the chat template refuses a chat.
    """
    if isinstance(prompt, str):
        pair = _pair(prompt, "a", tokenizer)
        return list(compress(pair.ids, (not counts for counts in pair.counted)))
    text = _rendered(prompt, tokenizer)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode_answer(prompt: Prompt, answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text that continues a prompt, without EOS.

    >>> from lit_entrodrop.model.config import LMConfig
    >>> from lit_entrodrop.model.loading import load_tokenizer
    >>> tokenizer = load_tokenizer(LMConfig().tokenizer_source)
    >>> tokenizer.decode(encode_answer("The capital is", " Paris", tokenizer))
    ' Paris'
    """
    before = prompt if isinstance(prompt, str) else _rendered(prompt, tokenizer)
    pair = _pair(before, answer, tokenizer)
    # Training ends the completion with EOS.
    return list(compress(pair.ids, pair.counted))[:-1]


def _rendered(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    chat = Chat(messages)
    known = with_known_roles(messages, template_of(chat, tokenizer))
    return render(chat._replace(messages=known), tokenizer, prompt=True)


def _pair(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    return with_one_bos(encode_completion(json.dumps([prompt, completion]), tokenizer), tokenizer)
