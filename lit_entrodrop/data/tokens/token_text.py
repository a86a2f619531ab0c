"""Text of single tokens."""

import re

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

# Tokenizers decode part of a character to this.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
# As SentencePiece writes a token of one byte.
BYTE = re.compile("<0x([0-9A-F]{2})>")
# As byte-level tokenizers write bytes.
BYTE_LEVEL = {character: byte for byte, character in bytes_to_unicode().items()}


def pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Return the text that each token adds to the tokens before it.

    A character of several tokens is added by the last of them.
    """
    found: list[str] = []
    # The token before shows whether a tokenizer removes the space at the start of a text.
    before = start = 0
    for end in range(1, len(ids) + 1):
        text = _decode(tokenizer, ids[before:end])
        if text.endswith(INCOMPLETE) and end < len(ids):
            found.append("")
        else:
            found.append(text[len(_decode(tokenizer, ids[before:start])) :])
            before, start = start, end
    return found


def bytes_of(token: str) -> bytes | None:
    r"""Return the bytes of a token of the vocabulary, None if it is not written in bytes.

    >>> bytes_of("<0xE4>"), bytes_of("Ġä"), bytes_of("▁a")
    (b'\xe4', b' \xe4', None)
    """
    if found := BYTE.fullmatch(token):
        return bytes.fromhex(found[1])
    if all(character in BYTE_LEVEL for character in token):
        return bytes(BYTE_LEVEL[character] for character in token)
    return None


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
