"""Visible text of tokens."""

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.tokens.token_text import bytes_of, pieces
from lit_entrodrop.runtime.shown_text import visible


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
