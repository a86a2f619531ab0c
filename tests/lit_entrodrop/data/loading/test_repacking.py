from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from lit_entrodrop.data.loading.repacking import Repacking
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from lit_entrodrop.runtime.steps import epochs_begun
from regularizers.functional import IGNORE_INDEX

BLOCK = 16
EPOCHS = range(5)


def mixed_documents(seed: int) -> TokenizedDocuments:
    """Make short and long texts, and short and long chats; each token is a number of its own."""
    random = np.random.default_rng(seed)
    lengths = np.append(random.integers(1, 60, 40), [2, 15, 16, 17, 18, 33, 49])
    counted = [
        np.ones(length, bool) if document % 2 else random.random(length) < 0.2
        for document, length in enumerate(lengths)
    ]
    tokens = np.arange(lengths.sum(), dtype=np.uint32)
    return TokenizedDocuments(tokens, np.concatenate(counted), lengths)


def repacking(documents: TokenizedDocuments, seed: int = 0, packing: bool = True) -> Repacking:
    return Repacking(pack_documents(documents, BLOCK, pad_id=0, packing=packing), seed, packing)


def chunks_in(blocks: PackedBlocks) -> Iterator[tuple[int, list[int], list[int]]]:
    """Yield document, tokens and labels of each chunk, from the rows alone."""
    for number in range(len(blocks)):
        row = {name: values.numpy() for name, values in blocks[blocks.block(number)].items()}
        real = row["document_ids"] >= 0
        assert (row["token_index"][real] == row["input_ids"][real]).all()
        assert (row["token_index"][~real] == -1).all()
        documents = blocks.document_numbers(
            blocks[number]["block_id"][None], blocks[number]["document_ids"][None]
        )[0].numpy()
        for chunk in range(row["document_ids"].max() + 1):
            of_chunk = row["document_ids"] == chunk
            [document] = set(documents[of_chunk].tolist())
            labels = row["labels"][of_chunk]
            kept = labels[labels != IGNORE_INDEX].tolist()
            yield document, row["input_ids"][of_chunk].tolist(), kept


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_each_epoch_has_every_label_once_and_cuts_texts_alone(seed: int, packing: bool) -> None:
    documents = mixed_documents(seed)
    ends = np.cumsum(documents.lengths)
    own, cuts = repacking(documents, seed, packing), list[list[int]]()
    chats = {epoch: [c for c in chunks_in(own.blocks(epoch)) if c[0] % 2 == 0] for epoch in EPOCHS}
    assert all(sorted(chats[epoch]) == sorted(chats[0]) for epoch in EPOCHS)
    for epoch in EPOCHS:
        texts = sorted(c for c in chunks_in(own.blocks(epoch)) if c[0] % 2)
        # The chunks of a text are consecutive tokens. Only the first of a chunk is no label.
        assert [labels for _, _, labels in texts] == [tokens[1:] for _, tokens, _ in texts]
        for document in range(1, len(ends), 2):
            chunks = [tokens for of, tokens, _ in texts if of == document]
            whole = range(ends[document] - documents.lengths[document], ends[document])
            assert [token for tokens in chunks for token in tokens] == list(whole)
            sizes = [len(tokens) for tokens in chunks]
            assert len(whole) > BLOCK or len(chunks) == 1
            assert min(sizes) > 1 or len(whole) == 1
            # Only the last chunks may be shorter, by the token that a last one must not be alone.
            assert all(size >= BLOCK - 1 for size in sizes[1:-1])
            if document == len(ends) - 2:
                cuts.append(np.cumsum(sizes)[:-1].tolist())
    assert len({tuple(each) for each in cuts}) > 2


def test_epochs_are_a_function_of_seed_and_epoch() -> None:
    documents = mixed_documents(0)
    first, again, other = repacking(documents), repacking(documents), repacking(documents, seed=1)
    fingerprints = [first.blocks(epoch).fingerprint for epoch in EPOCHS]
    assert [again.blocks(epoch).fingerprint for epoch in reversed(EPOCHS)] == fingerprints[::-1]
    assert len(set(fingerprints)) == len(EPOCHS)
    assert first.blocks(0).fingerprint == first.first.fingerprint
    assert other.blocks(1).fingerprint not in fingerprints
    assert [first.count(epoch) for epoch in EPOCHS] == [len(first.blocks(e)) for e in EPOCHS]


def test_cuts_are_uniform() -> None:
    """The first cut is 2 to 16 tokens after the start, each equally often."""
    documents = TokenizedDocuments(
        np.arange(40_000, dtype=np.uint32), np.ones(40_000, bool), np.full(1000, 40)
    )
    chunks = repacking(documents).blocks(1).chunks
    found = Counter(chunks.lengths[chunks.starts % 40 == 0].tolist())
    assert sorted(found) == list(range(2, BLOCK + 1))
    assert max(abs(count - 1000 / 15) for count in found.values()) < 4 * (1000 / 15) ** 0.5


def test_short_documents_are_packed_with_others() -> None:
    lengths = np.full(60, 5)
    tokens = np.arange(300, dtype=np.uint32)
    own = repacking(TokenizedDocuments(tokens, np.ones(300, bool), lengths))
    neighbors = [
        {frozenset(np.unique(b[n]["input_ids"].numpy() // 5).tolist()) for n in range(len(b))}
        for b in map(own.blocks, range(2))
    ]
    assert not neighbors[0] & neighbors[1]
    assert own.most_blocks(lambda _: 10**9) == len(own.first)


@pytest.mark.parametrize(
    ("max_epochs", "max_steps"), [(1, -1), (7, -1), (-1, 30), (-1, 31), (3, 1000), (100, 29)]
)
def test_length_of_a_run_is_known_before_it(max_epochs: int, max_steps: int) -> None:
    own = repacking(mixed_documents(0))

    def count_epochs(blocks: int) -> int:
        return epochs_begun(-(-blocks // 4), max_epochs, max_steps)

    most = own.most_blocks(count_epochs)
    epochs = count_epochs(most)
    assert most >= max(own.count(epoch) for epoch in range(epochs))
    counts = [max(own.count(epoch) for epoch in range(last + 1)) for last in range(epochs + 1)]
    assert most in counts
    # Fewer blocks would not do for the epochs that they leave.
    for fewer in {count for count in counts if count < most}:
        assert fewer < max(own.count(epoch) for epoch in range(count_epochs(fewer)))
