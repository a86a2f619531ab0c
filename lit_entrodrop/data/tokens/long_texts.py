"""Tokenize long texts in pieces: the backend of a tokenizer takes 100 bytes for a character."""

from transformers import PreTrainedTokenizerBase

PIECE = 2**18  # characters
# The end of a piece that the next one tokenizes again, and the last part of it that may differ.
OVERLAP, UNSURE = 2**12, 2**10

Token = tuple[int, int]


def encode_long_text(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """Tokenize a long text piece by piece, with its special tokens.

    Neighboring pieces share thousands of characters. If both give the same tokens there, these are
    the tokens of the whole text, because a token does not depend on text so far away.

    Returns:
        Token ids; None if the text is short, pieces differ, as they may without word boundaries,
        or the tokenizer has no offsets.
    """
    if len(text) <= PIECE or not tokenizer.is_fast:
        return None
    first, last = _added_tokens(tokenizer)
    ids, start = first, 0
    # One object for equal numbers, which take less memory than one for each token.
    shared: dict[int, int] = {}
    tokens = _encode(text, start, tokenizer)
    while start + PIECE < len(text):
        cut = _last_cut(tokens, text, start + PIECE - OVERLAP)
        if cut is None:
            return None
        position = tokens[cut][1]
        following = _encode(text, position, tokenizer)
        end = start + PIECE - UNSURE
        again = [token for token in following[: len(tokens) - cut] if token[1] < end]
        if [token for token in tokens[cut:] if token[1] < end] != again:
            return None
        ids.extend(shared.setdefault(token, token) for token, _ in tokens[:cut])
        tokens, start = following, position
    ids.extend(shared.setdefault(token, token) for token, _ in tokens)
    return ids + last


def _encode(text: str, start: int, tokenizer: PreTrainedTokenizerBase) -> list[Token]:
    """Return the tokens of the piece that starts at a character, with their first characters."""
    encoded = tokenizer(
        text[start : start + PIECE],
        add_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    starts = (start + first for first, _ in encoded["offset_mapping"])
    return list(zip(encoded["input_ids"], starts, strict=True))


def _last_cut(tokens: list[Token], text: str, before: int) -> int | None:
    """Return the index of the last token before a character that begins a word."""
    return next(
        (
            index
            for index in range(len(tokens) - 1, 0, -1)
            if tokens[index - 1][1] < tokens[index][1] < before
            and text[tokens[index][1]].isspace()
            and not text[tokens[index][1] - 1].isspace()
        ),
        None,
    )


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after each text."""
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer("a", verbose=False)["input_ids"]
    start = next(n for n in range(len(whole)) if whole[n : n + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]
