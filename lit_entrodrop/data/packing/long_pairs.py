"""Prompts and chats that are longer than a block, where they are dropped or refused."""

from collections.abc import Sequence

import numpy as np

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.label_settings import LongPairs
from lit_entrodrop.data.packing.chunking import Flags, in_windows
from lit_entrodrop.data.tokenizing import TokenizedDocuments


def find_dropped(
    tokenized: TokenizedDocuments,
    documents: Sequence[Document],
    block_size: int,
    long_pairs: LongPairs,
) -> Flags:
    """Return which documents `long_pairs` drops, [documents] bool.

    Args:
        tokenized: Tokens of the documents.
        documents: The documents.
        block_size: Number of tokens in a block.
        long_pairs: What becomes of prompts and chats that are longer than a block.

    Raises:
        ValueError: If there is one and it is an error.
    """
    if long_pairs not in ("drop", "error"):
        return np.zeros(len(documents), np.bool_)
    long = in_windows(tokenized.lengths, tokenized.counted, block_size)
    if long_pairs == "error" and long.any():
        first = int(long.argmax())
        raise ValueError(
            f"{documents[first].where}: expected a prompt with its completion, or a chat, of at "
            f"most {block_size} tokens (data.block_size), got {tokenized.lengths[first]}. Shorten "
            "it, raise data.block_size, or set data.long_pairs to truncate_prompt."
        )
    return long
