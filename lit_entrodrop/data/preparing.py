"""The way from documents to packed splits."""

from collections.abc import Mapping, Sequence

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.blocks import pack_documents
from lit_entrodrop.data.cache import PackedSplit
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.settings import shares_of
from lit_entrodrop.data.sources import read_corpus
from lit_entrodrop.data.splitting import count_duplicates, split_documents
from lit_entrodrop.data.tokenizing import tokenize_documents


def gather_documents(
    corpus: Sequence[str],
    held_out: Mapping[str, float | str],
    text_column: str,
    split_seed: int,
) -> dict[str, list[Document]]:
    """Read and split the corpus, and read the corpora that other splits may have of their own.

    Args:
        corpus: Sources, see `read_corpus`.
        held_out: For "validation", "test" and "holdout", a share of the documents or a source; none
            is left out.
        text_column: Name of the column that holds plain text.
        split_seed: Seed of the split.

    Returns:
        The documents of each split that was asked for, none of them empty.

    Raises:
        ValueError: If a split that was asked for is left without a document.
    """
    shares = shares_of(held_out)
    documents = read_corpus(corpus, text_column)
    sides = split_documents(documents, **shares, seed=split_seed)
    for name, of in held_out.items():
        if isinstance(of, str):
            sides[name] = read_corpus([of], text_column)
            _drop_shared("train", name, sides)
    # What weighs the training documents must not know what they are judged by.
    for name in ("validation", "test"):
        _drop_shared("holdout", name, sides)
    wanted = {name: side for name, side in sides.items() if held_out.get(name, name == "train")}
    for name, side in wanted.items():
        if not side:
            raise ValueError(
                f"no document for {name}: the split of {len(documents)} documents by {shares} left "
                "none. Give more documents (lines that hold only <|endoftext|> cut a .txt file), "
                f"another share or split_seed, or {name} its own path."
            )
    return wanted


def prepare_split(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    packing: bool = True,
    max_tokens: int | None = None,
    num_proc: int = 1,
    name: str = "train",
) -> PackedSplit:
    """Tokenise and pack the documents of one split.

    Args:
        documents: At least one document.
        tokenizer: The tokenizer, with an EOS token.
        block_size: Tokens in a block, at least 2.
        packing: Fill blocks with several documents; otherwise one document (chunk) a block.
        max_tokens: Keep only the first documents that together have at most so many tokens.
        num_proc: Processes for tokenising.
        name: Name of the split, for messages.

    Returns:
        The blocks and counts.

    Raises:
        ValueError: If no document is usable, or the first alone exceeds `max_tokens`.
    """
    tokenized = tokenize_documents(documents, tokenizer, num_proc, f"Tokenising {name}")
    usable = tokenized.trainable()
    kept = [document for document, keep in zip(documents, usable, strict=True) if keep]
    if not kept:
        raise ValueError(
            f"{name}: none of the {len(documents)} documents has a token to predict; all are "
            "shorter than 2 tokens, or have no completion or assistant turn. Give longer documents."
        )
    tokenized = tokenized.select(usable)
    skipped, beyond = len(documents) - len(kept), 0
    if max_tokens is not None:
        within = tokenized.within(max_tokens)
        count = int(within.sum())
        if not count:
            setting = "max_train_tokens" if name == "train" else f"{name}_tokens"
            raise ValueError(
                f"{setting}: expected room for a whole document, got {max_tokens}, but the "
                f"first has {tokenized.lengths[0]} tokens. Raise it or give shorter documents."
            )
        tokenized, kept, beyond = tokenized.select(within), kept[:count], len(kept) - count
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    blocks = pack_documents(tokenized, block_size, pad_id, packing)
    return PackedSplit(blocks, len(kept), count_duplicates(kept), skipped, beyond)


def sample_blocks(split: PackedSplit, count: int, seed: int) -> PackedSplit:
    """Draw blocks without replacement, in their order.

    Args:
        split: Where they are from.
        count: How many, at most.
        seed: The same gives the same blocks.

    Returns:
        A split of these blocks.
    """
    random, size = np.random.default_rng(seed), len(split.blocks)
    chosen = random.choice(size, min(count, size), replace=False)
    sample = split.blocks.select(np.sort(chosen))
    return PackedSplit(sample, len(np.unique(sample.documents)), duplicates=0)


def _drop_shared(name: str, other: str, sides: dict[str, list[Document]]) -> None:
    others = set(sides[other])
    kept = [document for document in sides[name] if document not in others]
    if dropped := len(sides[name]) - len(kept):
        rank_zero_warn(
            f"{dropped} documents of {other} are in {name} too: they were left out of {name}, or "
            f"what is measured on {other} would look better than it is."
        )
    sides[name] = kept
