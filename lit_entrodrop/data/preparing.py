"""Prepare the packed splits of a corpus: read, split, tokenize and pack it, or open the cache."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import BEYOND_LIMIT, describe_adjustments
from lit_entrodrop.data.cache import read_splits, write_splits
from lit_entrodrop.data.chunking import count_cuts
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.data.packing import pack_documents
from lit_entrodrop.data.sources import digest_corpus, read_corpus
from lit_entrodrop.data.splitting import read_and_split, split_documents
from lit_entrodrop.data.tokenizing import digest_tokenizer, tokenize_documents

# Increase it when the same text and settings give other blocks or files than before.
CACHE_FORMAT = 4
KEYED_SETTINGS = ("block_size", "packing", "text_column", "max_train_tokens", "split_seed")


@dataclass(frozen=True)
class Preparation:
    """Settings of the data module that, with the tokenizer, determine the packed splits.

    `split_sources` has the share or the separate corpus of each split other than training.
    """

    corpus: Sequence[str]
    split_sources: Mapping[str, float | str]
    forgetting: str | None
    forgetting_tokens: int
    max_train_tokens: int | None
    text_column: str
    split_seed: int
    block_size: int
    packing: bool

    @property
    def sources(self) -> list[str]:
        """All sources of text."""
        separate = [source for source in self.split_sources.values() if isinstance(source, str)]
        return [*self.corpus, *separate, *filter(None, [self.forgetting])]

    def cache_key(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Hash the settings and the content of all corpora, 32 hexadecimal digits."""
        sources = [source for source in self.split_sources.values() if isinstance(source, str)]
        general = [] if self.forgetting is None else [self.forgetting]
        key = {
            "format": CACHE_FORMAT,
            "corpus": digest_corpus(self.corpus, self.text_column),
            "own": digest_corpus(sources, self.text_column),
            "held_out": [isinstance(of, str) or of for of in self.split_sources.values()],
            "forgetting": [
                (digest_corpus([source], self.text_column), self.forgetting_tokens)
                for source in general
            ],
            "tokenizer": digest_tokenizer(tokenizer),
            **{name: getattr(self, name) for name in KEYED_SETTINGS},
        }
        return hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def load_or_prepare(
    preparation: Preparation, tokenizer: PreTrainedTokenizerBase, cache_dir: str, num_proc: int
) -> PackedSplits:
    """Open the requested splits from the cache; prepare and cache them if need be."""
    folder = Path(cache_dir).expanduser() / preparation.cache_key(tokenizer)
    splits = read_splits(folder)
    if splits is None:
        write_splits(folder, splits := prepare_splits(preparation, tokenizer, num_proc))
    return splits


def prepare_splits(
    preparation: Preparation, tokenizer: PreTrainedTokenizerBase, num_proc: int
) -> PackedSplits:
    """Read, split, tokenize and pack the corpus, and the general corpus as "forgetting"."""
    text_column, seed = preparation.text_column, preparation.split_seed
    documents = read_and_split(preparation.corpus, preparation.split_sources, text_column, seed)
    if preparation.forgetting is not None:
        general = read_corpus([preparation.forgetting], text_column)
        documents["forgetting"] = split_documents(general, 0, 0, seed)["train"]
    prepare = partial(
        prepare_split,
        tokenizer=tokenizer,
        block_size=preparation.block_size,
        packing=preparation.packing,
        num_proc=num_proc,
    )
    limits = {"train": preparation.max_train_tokens, "forgetting": preparation.forgetting_tokens}
    return PackedSplits(
        {
            name: prepare(of_split, max_tokens=limits.get(name), name=name)
            for name, of_split in documents.items()
        }
    )


def prepare_split(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    packing: bool = True,
    max_tokens: int | None = None,
    num_proc: int = 1,
    name: str = "train",
) -> PackedSplit:
    """Tokenize and pack the documents of one split; whole ones are kept up to `max_tokens`.

    Raises:
        ValueError: If no document is usable, or the first one alone exceeds `max_tokens`.
    """
    tokenized = tokenize_documents(documents, tokenizer, num_proc, f"Tokenizing {name}")
    usable, adjustments = tokenized.lengths > 0, Counter(tokenized.adjustments)
    kept = [document for document, keep in zip(documents, usable, strict=True) if keep]
    if not kept:
        raise ValueError(
            f"{name}: expected a document with a token to predict, got "
            f"{describe_adjustments(adjustments)}. Give documents of 2 tokens or more, with a "
            "completion or an assistant turn where these alone count."
        )
    tokenized = tokenized.select(usable)
    if max_tokens is not None:
        within = np.cumsum(tokenized.lengths) <= max_tokens
        count = int(within.sum())
        if not count:
            setting = "max_train_tokens" if name == "train" else f"{name}_tokens"
            raise ValueError(
                f"{setting}: expected room for a whole document, got {max_tokens}, but the "
                f"first has {tokenized.lengths[0]} tokens. Raise it or give shorter documents."
            )
        adjustments[BEYOND_LIMIT] = len(kept) - count
        tokenized, kept = tokenized.select(within), kept[:count]
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    adjustments.update(count_cuts(tokenized.lengths, tokenized.counted, block_size))
    blocks = pack_documents(tokenized, block_size, pad_id, packing)
    return PackedSplit(blocks, len(kept), len(kept) - len(set(kept)), adjustments)


def sample_blocks(split: PackedSplit, count: int, seed: int) -> PackedSplit:
    """Sample at most `count` blocks without replacement, and keep their order."""
    random, size = np.random.default_rng(seed), len(split.blocks)
    chosen = random.choice(size, min(count, size), replace=False)
    sample = split.blocks.select(np.sort(chosen))
    return PackedSplit(sample, len(np.unique(sample.documents)), duplicates=0)
