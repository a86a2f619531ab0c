"""Statistics of the packed splits: what counts, what is cut, skipped or padded."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lit_entrodrop.data.packing.array_files import pieces_of
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Integers
from lit_entrodrop.data.preparing.packed_splits import PackedSplit, PackedSplits

QUANTILES = (0, 0.1, 0.5, 0.9, 1)


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of a split.

    Args:
        name: Name of the split.
        split: The split.
        lengths: Number of tokens of each document, [documents] int64.
        labels: Number of tokens that count in the loss.
        cut: Number of documents that are cut into several chunks.
        left_out: Number of tokens of documents that are in no chunk.
        unlearned: Number of tokens that would count, but begin a chunk, where nothing predicts
            them, or are left out.
        unlabeled: Number of chunks without a token that counts.
    """

    name: str
    split: PackedSplit
    lengths: Integers
    labels: int
    cut: int
    left_out: int
    unlearned: int
    unlabeled: int

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield name and value of each statistic, except the counted reasons."""
        blocks = self.split.blocks
        tokens, text = blocks.num_tokens, int(self.lengths.sum())
        yield "documents", f"{self.split.documents:,}"
        yield "exact duplicates", f"{self.split.duplicates:,}"
        yield "tokens in blocks", f"{tokens:,}"
        yield "tokens that count", f"{self.labels:,} ({self.labels / tokens:.1%})"
        yield f"blocks of {blocks.block_size:,}", f"{len(blocks):,}"
        yield "padding", f"{blocks.padding:.1%}"
        quantiles = np.quantile(self.lengths, QUANTILES)
        names = ("shortest document", "10% quantile", "median", "90% quantile", "longest document")
        for name, length in zip(names, quantiles, strict=True):
            yield name, f"{length:,.0f}"
        yield "documents cut", f"{self.cut:,} ({self.cut / self.split.documents:.1%})"
        yield "left out of long documents", f"{self.left_out:,} ({self.left_out / text:.1%})"
        yield "never learned after a cut", f"{self.unlearned:,} ({self.unlearned / text:.1%})"
        yield "chunks without a label", f"{self.unlabeled:,}"

    def counts(self) -> list[str]:
        """Count the formats of the records, and how often text was skipped, cut or changed."""
        counts = [(f"documents of the format {name}", n) for name, n in self.split.formats.items()]
        counts += sorted(self.split.adjustments.items())
        return [f"{count:,} {reason}" for reason, count in counts if count]


def statistics_of(splits: PackedSplits) -> list[SplitStatistics]:
    """Return the statistics of all splits, without the sample of training blocks."""
    return [_statistics(name, split) for name, split in splits.items() if name != "clean_train"]


def document_bounds(blocks: PackedBlocks) -> tuple[Integers, Integers]:
    """Return the index of the first token of each document, and the index after its last one.

    Text at the end of a long chat that no chunk has counts as the start of the next document.

    >>> from lit_entrodrop.data.packing.best_fit import pack_documents
    >>> from lit_entrodrop.data.tokenizing import TokenizedDocuments
    >>> ids, everywhere = np.arange(8, dtype=np.uint16), np.ones(8, dtype=bool)
    >>> documents = TokenizedDocuments(ids, everywhere, np.array([3, 5]))
    >>> document_bounds(pack_documents(documents, block_size=4, pad_id=0))
    (array([0, 3]), array([3, 8]))
    """
    starts, lengths, _, documents = blocks.chunks
    ends = np.zeros(blocks.num_documents, np.int64)
    np.maximum.at(ends, documents, starts + lengths)
    return np.append(0, ends[:-1]), ends


def _statistics(name: str, split: PackedSplit) -> SplitStatistics:
    blocks, labels = split.blocks, split.blocks.labels_per_chunk
    starts, ends = document_bounds(blocks)
    counted = sum(int(piece.sum()) for piece in pieces_of(blocks.counted))
    # Nothing could predict the first token of a document.
    counted -= int(blocks.counted[starts].sum())
    return SplitStatistics(
        name,
        split,
        lengths=ends - starts,
        labels=int(labels.sum()),
        cut=int((np.bincount(blocks.chunks.documents) > 1).sum()),
        left_out=len(blocks.tokens) - _covered(blocks),
        unlearned=counted - int(labels.sum()),
        unlabeled=int((labels == 0).sum()),
    )


def _covered(blocks: PackedBlocks) -> int:
    """Count the tokens that are in a chunk, each once."""
    order = np.argsort(blocks.chunks.starts)
    starts = blocks.chunks.starts[order]
    ends = np.maximum.accumulate(starts + blocks.chunks.lengths[order])
    return int((ends - np.maximum(starts, np.append(0, ends[:-1]))).clip(min=0).sum())
