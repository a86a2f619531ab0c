"""Prepare the packed splits of a corpus: read, split, tokenize and pack it, or open the cache."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import BEYOND_LIMIT, DROPPED, describe_adjustments
from lit_entrodrop.data.label_settings import DEFAULT_LABELS, LabelSettings
from lit_entrodrop.data.mixing import REPLAY, Replay
from lit_entrodrop.data.packing.long_pairs import find_dropped
from lit_entrodrop.data.packing.token_files import TokenFiles
from lit_entrodrop.data.preparing.cache import read_splits, write_splits
from lit_entrodrop.data.preparing.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.data.preparing.replay_documents import (
    BYTES_PER_TOKEN,
    prepare_replay,
    store_sample,
)
from lit_entrodrop.data.preparing.splitting import SPLITS, read_and_split, split_documents
from lit_entrodrop.data.preparing.stored_documents import StoredDocuments, store_documents
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import check_columns_seen
from lit_entrodrop.data.sources import count_bytes, digest_corpus, read_corpus
from lit_entrodrop.data.tokenizing import (
    check_tokenizer,
    count_processes,
    digest_tokenizer,
    tokenize_documents,
)

# Increase it when the same text and settings give other blocks or files than before.
CACHE_FORMAT = 7
# Bytes on disk for each byte of text: the text itself, its tokens, and its blocks. A token takes 5
# bytes until it is packed, then 3, and stands for about 4 bytes of text.
ROOM = 1 + 5 / 4 + 3 / 4
KEYED_SETTINGS = ("block_size", "packing", "max_train_tokens", "split_seed")


@dataclass(frozen=True)
class Preparation:
    """Settings of the data module that, with the tokenizer, determine the packed splits.

    `split_sources` has the share or the separate corpus of each split other than training, and the
    corpora of the named evaluation sets. In a corpus with weights, each source has blocks of its
    own.
    """

    corpus: Sequence[str]
    split_sources: Mapping[str, float | str]
    forgetting: str | None
    forgetting_tokens: int
    max_train_tokens: int | None
    options: ReadingOptions
    split_seed: int
    block_size: int
    packing: bool
    labels: LabelSettings = DEFAULT_LABELS
    is_weighted: bool = False
    replay: Replay | None = None

    @property
    def separate_corpora(self) -> list[str]:
        """Corpora of splits that are no share of `corpus`."""
        return [source for source in self.split_sources.values() if isinstance(source, str)]

    def sources_in(self, split: str) -> int:
        """Number of sources that are packed separately in a split; 0 for all together."""
        is_of_corpus = split == "train" or isinstance(self.split_sources.get(split), float | int)
        return len(self.corpus) if self.is_weighted and is_of_corpus else 0

    @property
    def general_corpora(self) -> list[str]:
        """The corpus that measures forgetting, if any."""
        return [] if self.forgetting is None else [self.forgetting]

    @property
    def sources(self) -> list[str]:
        """All sources of text."""
        return [*self.own_sources, *(self.replay.sources if self.replay else [])]

    @property
    def own_sources(self) -> list[str]:
        """Sources of all text except replay."""
        return [*self.corpus, *self.separate_corpora, *self.general_corpora]

    def count_bytes(self) -> int:
        """Count the bytes of text that are stored for a while; those of replay are bounded."""
        own = count_bytes(self.own_sources)
        if self.replay is None:
            return own
        most = BYTES_PER_TOKEN * self.replay.max_tokens
        return own + min(count_bytes(self.replay.sources), most)

    def cache_key(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Hash the settings and the content of all corpora, 32 hexadecimal digits."""
        key = {
            "format": CACHE_FORMAT,
            "corpus": digest_corpus(self.corpus, self.options),
            "own": digest_corpus(self.separate_corpora, self.options),
            "held_out": [isinstance(of, str) or of for of in self.split_sources.values()],
            "forgetting": [
                (digest_corpus([source], self.options), self.forgetting_tokens)
                for source in self.general_corpora
            ],
            "tokenizer": digest_tokenizer(tokenizer),
            **{name: getattr(self, name) for name in KEYED_SETTINGS},
            # Omitted by default, so that the cache key of such data does not change.
            **self.labels.key(),
        }
        if sets := [name for name in self.split_sources if name not in SPLITS]:
            key["evaluate"] = sets
        if self.is_weighted:
            key["sources"] = len(self.corpus)
        if self.replay:
            text = digest_corpus(self.replay.sources, self.options)
            key["replay"] = text, self.replay.max_tokens
        return hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def load_or_prepare(
    preparation: Preparation,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str,
    num_proc: int | None = None,
) -> PackedSplits:
    """Open the requested splits from the cache; prepare and cache them if need be."""
    folder = Path(cache_dir).expanduser() / preparation.cache_key(tokenizer)
    splits = read_splits(folder)
    if splits is None:
        prepare = partial(prepare_splits, preparation, tokenizer, num_proc)
        room = int(preparation.count_bytes() * ROOM)
        splits = write_splits(folder, prepare, room)
    return splits


def prepare_splits(
    preparation: Preparation,
    tokenizer: PreTrainedTokenizerBase,
    num_proc: int | None,
    folder: Path,
) -> PackedSplits:
    """Read, split, tokenize and pack the corpus, and the general corpus as "forgetting".

    The arrays of each split are written to a folder of its name in `folder`.
    """
    options, seed = preparation.options, preparation.split_seed
    documents = read_and_split(preparation.corpus, preparation.split_sources, options, seed, folder)
    if preparation.forgetting is not None:
        general = read_corpus([preparation.forgetting], options)
        stored = store_documents(general, seed, folder)
        documents["forgetting"] = split_documents(stored, 0, 0)["train"]
    check_columns_seen(options)
    for split in documents.values():
        check_tokenizer(tokenizer, split.kinds)
    prepare = partial(
        prepare_split,
        tokenizer=tokenizer,
        block_size=preparation.block_size,
        packing=preparation.packing,
        num_proc=num_proc,
        folder=folder,
        labels=preparation.labels,
    )
    limits = {"train": preparation.max_train_tokens, "forgetting": preparation.forgetting_tokens}
    splits = PackedSplits(
        {
            name: prepare(
                of_split,
                max_tokens=limits.get(name),
                name=name,
                num_sources=preparation.sources_in(name),
            )
            for name, of_split in documents.items()
        }
    )
    if (replay := preparation.replay) is not None:
        general = read_corpus(replay.sources, options)
        sample, count = store_sample(general, replay.max_tokens, seed, folder)
        check_tokenizer(tokenizer, sample.kinds)
        splits[REPLAY] = prepare_replay(
            sample, count, replay.max_tokens, documents, splits, prepare
        )
    return splits


def prepare_split(
    documents: StoredDocuments,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    packing: bool = True,
    max_tokens: int | None = None,
    num_proc: int | None = None,
    name: str = "train",
    folder: Path | None = None,
    labels: LabelSettings = DEFAULT_LABELS,
    num_sources: int = 0,
) -> PackedSplit:
    """Tokenize and pack the documents of one split; whole ones are kept up to `max_tokens`.

    The arrays are written to the folder `name` in `folder`, or are in memory without it. If
    the number of sources is given, a block has documents of one source.

    Raises:
        ValueError: If no document is usable, or the first one alone exceeds `max_tokens`.
    """
    files = TokenFiles(block_size, folder, labels.least_context(block_size))
    adjustments = Counter[str]()
    limit, kept, seen = math.inf if max_tokens is None else max_tokens, [], 0
    processes = count_processes(num_proc, int(documents.sizes.sum()))
    parts = tokenize_documents(
        documents, tokenizer, processes, f"Tokenizing {name}", labels.train_on
    )
    for part in parts:
        at = slice(seen, seen + len(part.lengths))
        dropped = find_dropped(part, documents[at], block_size, labels.long_pairs)
        adjustments[DROPPED] += int(dropped.sum())
        usable = (part.lengths > 0) & ~dropped
        within = usable & (files.num_tokens + np.cumsum(part.lengths * usable) <= limit)
        adjustments.update(part.adjustments)
        files.append(part.select(within))
        kept.append(seen + np.flatnonzero(within))
        seen += len(usable)
        if beyond := int(usable.sum() - within.sum()):
            if not files.num_documents:
                settings = {"train": "max_train_tokens", REPLAY: "replay.max_tokens"}
                setting = settings.get(name, f"{name}_tokens")
                raise ValueError(
                    f"{setting}: expected room for a whole document, got {max_tokens}, but the "
                    f"first has {part.lengths[usable][0]} tokens. Raise it or give shorter "
                    "documents."
                )
            # The rest is not even tokenized.
            adjustments[BEYOND_LIMIT] = beyond + len(documents) - seen
            break
    if not files.num_documents:
        raise ValueError(
            f"{name}: expected a document with a token to predict, got "
            f"{describe_adjustments(adjustments)}. Give documents of 2 tokens or more, with a "
            "completion or an assistant turn where these alone count. If they were dropped as too "
            "long, raise data.block_size, or set data.long_pairs to truncate_prompt."
        )
    adjustments.update(files.cuts)
    packed = documents.select(np.concatenate(kept))
    duplicates = files.num_documents - len(np.unique(packed.digests))
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    groups = packed.sources.astype(np.int64) if num_sources else None
    blocks = files.pack(pad_id, packing, folder and folder / name, groups)
    of_sources: list[int] = []
    if groups is not None:
        firsts = blocks.chunks.documents[blocks.block_starts[:-1]]
        of_sources = np.bincount(groups[firsts], minlength=num_sources).tolist()
    counts = adjustments, packed.count_formats(), of_sources
    return PackedSplit(blocks, files.num_documents, duplicates, *counts)
