"""Tokenize plain text, and prompts with completions."""

import json
from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import BLANK_COMPLETION
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.data.tokens.encoded import Encoded
from lit_entrodrop.data.tokens.long_texts import encode_long_text


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Tokenize plain texts, in which every token counts."""
    # Batches are bounded, so that a long text is alone.
    long = encode_long_text(texts[0], tokenizer) if len(texts) == 1 else None
    rows = [long] if long else _encode_whole(texts, tokenizer)
    return [Encoded(ids, [True] * len(ids)) for ids in (_with_end(row, tokenizer) for row in rows)]


def encode_completion(
    content: str, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn = "completions"
) -> Encoded:
    """Tokenize a prompt and its completion; the prompt counts only if all text does.

    They are tokenized separately, as at inference. Their tokens decode to the joined text.

    Args:
        content: JSON of prompt and completion; further prompts and completions may follow.
        tokenizer: Tokenizer with an EOS token.
        train_on: Which part counts in the loss.
    """
    texts: list[str] = json.loads(content)
    if not any(text.strip() for text in texts[1::2]):
        return Encoded([], [], {BLANK_COMPLETION: 1})
    ids: list[int] = tokenizer(texts[0], verbose=False)["input_ids"]
    # A prompt may itself end with EOS, as a turn of a chat does.
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    counted = [train_on == "all"] * len(ids)
    for number, (before, text) in enumerate(pairwise(texts), start=1):
        ids += _continuation(before, text, tokenizer)
        counted += [number % 2 == 1 or train_on == "all"] * (len(ids) - len(counted))
    ids = _with_end(ids, tokenizer)
    return Encoded(ids, counted + counted[-1:] * (len(ids) - len(counted)))


def with_one_bos(row: Encoded, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Drop the BOS token that the tokenizer adds to a text that already begins with it."""
    repeated = row.ids[:2] == [tokenizer.bos_token_id] * 2
    return row._replace(ids=row.ids[1:], counted=row.counted[1:]) if repeated else row


def _encode_whole(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    # verbose=False: a warning about length would mislead, as `chunking` cuts long documents later.
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    rows: list[list[int]] = tokenizer(list(texts), **options)["input_ids"] if texts else []
    return rows


def _continuation(prompt: str, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokenize a text that follows a prompt.

    SentencePiece tokenizers begin each text with a space, which a continuation does not have.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    if tokenizer.decode(2 * encode("a")) == "aa":
        return encode(text)
    for before in (prompt, "\n", "a"):
        start, whole = encode(before), encode(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
    return encode(text)


def _with_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = tokenizer.eos_token_id
    return ids if ids and ids[-1] == end else [*ids, end]
