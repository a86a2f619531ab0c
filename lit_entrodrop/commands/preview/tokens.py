"""Tokens of a block as they are shown: text, whether they count, and what is done to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import isnan
from typing import Literal

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.commands.preview.batches import Place
from lit_entrodrop.commands.preview.effects import SeenBatch, TokenEffects
from lit_entrodrop.commands.preview.statistics import document_bounds
from lit_entrodrop.commands.preview.visible import visible_pieces, written
from lit_entrodrop.data.preparing.packed_splits import PackedSplits
from lit_entrodrop.runtime.shown_text import visible
from regularizers import Vocabulary
from regularizers.functional import IGNORE_INDEX, predicted_labels

# What happens to the input of a token: it becomes another, its embedding zero, or a changed one.
Change = Literal["", "replaced", "dropped", "changed"]


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token as it is shown.

    Args:
        token_id: Id in the batch.
        text: Visible text.
        name: Visible text of the token in the vocabulary.
        counts: Whether its label counts in the loss.
        special: Whether it is a special token.
        entropy: Entropy in nats of the prediction of it; NaN where unknown.
        change: What regularizers do to the input.
        replacement: Visible text of the token that replaces it in the input.
        weight: Weight of its loss, 1 without a regularizer, 0 where it does not count.
        remarks: What each regularizer does to it.
    """

    token_id: int
    text: str
    name: str
    counts: bool
    special: bool
    entropy: float = float("nan")
    change: Change = ""
    replacement: str = ""
    weight: float = 1.0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShownChunk:
    """Consecutive tokens of one document in a block.

    Args:
        document: Number of the document in its split.
        first: Index of the first token in the document.
        length: Number of tokens in the document.
        tokens: Its tokens.
    """

    document: int
    first: int
    length: int
    tokens: list[ShownToken]

    @property
    def counted(self) -> int:
        """Number of tokens that count in the loss."""
        return sum(token.counts for token in self.tokens)


@dataclass(frozen=True)
class ShownBlock:
    """A block as it is shown.

    Args:
        split: Name of its split.
        number: Its number in the split.
        place: Its place in training; None for another split.
        chunks: Its chunks.
        padding: Number of its positions without a token.
    """

    split: str
    number: int
    place: Place | None
    chunks: list[ShownChunk]
    padding: int


def shown_blocks(
    seen: SeenBatch, splits: PackedSplits, tokenizer: PreTrainedTokenizerBase
) -> Iterator[ShownBlock]:
    """Yield the blocks of a batch; blocks of padding alone are left out.

    Args:
        seen: The batch, and what happens to it.
        splits: All splits.
        tokenizer: Tokenizer of the text.
    """
    bounds = {split: document_bounds(splits[split].blocks) for split, _ in seen.selected.blocks}
    for row, (split, block) in enumerate(seen.selected.blocks):
        tokens, (starts, ends) = _tokens(seen, row, tokenizer), bounds[split]
        columns = (each.tolist() for each in block.chunks)
        chunks = [
            ShownChunk(
                document,
                int(start - starts[document]),
                int(ends[document] - starts[document]),
                list(islice(tokens, length)),
            )
            for start, length, _, document in zip(*columns, strict=True)
        ]
        if chunks:
            padding = splits[split].blocks.block_size - int(block.chunks.lengths.sum())
            yield ShownBlock(split, block.number, seen.selected.place, chunks, padding)


def _tokens(seen: SeenBatch, row: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[ShownToken]:
    """Yield the tokens of a row, without padding."""
    batch = seen.selected.batch
    ids, documents = batch["input_ids"][row].tolist(), batch["document_ids"][row].tolist()
    counts = predicted_labels(batch["labels"], batch["document_ids"])[row] != IGNORE_INDEX
    special_ids = set(Vocabulary.of_tokenizer(tokenizer).special_ids)
    chunks = groupby(zip(ids, documents, strict=True), key=lambda pair: pair[1])
    texts = [
        text
        for document, chunk in chunks
        if document >= 0
        for text in visible_pieces(tokenizer, [token_id for token_id, _ in chunk])
    ]
    for position, text in enumerate(texts):
        token_id, here = ids[position], (row, position)
        change, replacement = _input_of(seen.effects, here, tokenizer)
        yield ShownToken(
            token_id,
            text,
            visible(str(tokenizer.convert_ids_to_tokens(token_id))),
            bool(counts[position]),
            token_id in special_ids,
            float(seen.entropy[here]),
            change,
            replacement,
            _weight_of(seen.effects, here) if counts[position] else 0.0,
            tuple(_remarks(seen.effects, here, tokenizer)),
        )


def _input_of(
    effects: Sequence[TokenEffects], here: tuple[int, int], tokenizer: PreTrainedTokenizerBase
) -> tuple[Change, str]:
    new_ids = [int(each.new_ids[here]) for each in effects if each.new_ids[here] >= 0]
    if any(each.dropped[here] for each in effects):
        return "dropped", ""
    if new_ids:
        return "replaced", written(tokenizer, new_ids[-1])
    return ("changed" if any(each.change[here] != 0 for each in effects) else ""), ""


def _weight_of(effects: Sequence[TokenEffects], here: tuple[int, int]) -> float:
    known = [float(each.weight[here]) for each in effects if not isnan(each.weight[here])]
    return known[-1] if known else 1.0


def _remarks(
    effects: Sequence[TokenEffects], here: tuple[int, int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[str]:
    """Yield what each regularizer does to a token."""
    for each in effects:
        done = []
        if each.new_ids[here] >= 0:
            done.append(f"replaced by {written(tokenizer, int(each.new_ids[here]))}")
        if each.dropped[here]:
            done.append("embedding zeroed")
        elif isnan(each.change[here]):
            done.append("embedding changed")
        elif each.change[here]:
            done.append(f"embedding changed by {each.change[here]:.1%} of its norm")
        if not isnan(each.weight[here]):
            done.append(f"weight {each.weight[here]:.3g}")
        if not isnan(each.loss[here]):
            done.append(f"loss times {each.loss[here]:.3g}")
        if done:
            yield f"{each.name}: {', '.join(done)}"
