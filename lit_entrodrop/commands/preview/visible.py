"""Text of tokens, with everything that a screen would hide or obey made visible."""

import unicodedata

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.tokens.token_text import bytes_of, pieces

# Joiners within words and emoji, which do nothing else.
HARMLESS = "\u200c\u200d"
PICTURES = {code: 0x2400 + code for code in range(32)} | {
    0x7F: "\N{SYMBOL FOR DELETE}",
    ord("\n"): "↵\n",
    ord("\t"): "⇥",
}
# Control and format characters, surrogates, private use, and separators of lines.
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    r"""Return a text that shows control characters instead of obeying them.

    A line still ends after the sign of its end.

    >>> visible("a\tb\n"), visible("\x1b[31m"), visible("a\u202eb")
    ('a⇥b↵\n', '␛[31m', 'a⟨U+202E⟩b')
    """
    return "".join(map(_visible, text.translate(PICTURES)))


def visible_pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Return the visible text of each token of a text.

    A character of several tokens is in the last of them; the others show their bytes.
    """
    texts = pieces(tokenizer, ids)
    return [
        visible(text) if text and "\N{REPLACEMENT CHARACTER}" not in text else written(tokenizer, i)
        for text, i in zip(texts, ids, strict=True)
    ]


def written(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """Return the visible text of a token on its own, in one line: its bytes, if it is no text."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if not isinstance(token, str):
        return f"⟨id {token_id}⟩"
    found = None if token_id in tokenizer.all_special_ids else bytes_of(token)
    if found is None:
        return visible(token.replace("▁", " ")).replace("\n", "")
    try:
        return visible(found.decode()).replace("\n", "")
    except UnicodeDecodeError:
        return f"⟨{found.hex(' ').upper()}⟩"


def _visible(character: str) -> str:
    if character == "\n" or character in HARMLESS or unicodedata.category(character) not in HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"
