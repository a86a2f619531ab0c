import numpy as np
import pytest

from lit_entrodrop.commands.preview.statistics import statistics_of
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.preparing.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.data.tokenizing import TokenizedDocuments


@pytest.fixture
def split() -> PackedSplit:
    # Plain texts of 3, 9 and 6 tokens, and a prompt of 8 tokens with 2 labels.
    lengths = np.array([3, 9, 6, 10])
    counted = np.ones(28, bool)
    counted[18:26] = False
    tokens = TokenizedDocuments(np.arange(28, dtype=np.uint16), counted, lengths)
    blocks = pack_documents(tokens, block_size=4, pad_id=0)
    return PackedSplit(
        blocks, documents=4, duplicates=1, adjustments={"blank": 2, "none": 0}, formats={"text": 4}
    )


def test_statistics_are_those_of_the_documents(split: PackedSplit) -> None:
    [found] = statistics_of(PackedSplits({"train": split, "clean_train": split}))
    assert found.name == "train"
    assert found.lengths.tolist() == [3, 9, 6, 10]
    assert found.cut == 2
    # The prompt keeps the two tokens before its labels.
    assert found.left_out == 6
    # One at the start of each chunk: 4 + 3 + 2 and 4 + 2.
    assert found.unlearned == 2 + 1
    assert found.labels == 2 + 6 + 4 + 2
    assert found.unlabeled == 0
    assert found.counts() == ["4 documents of the format text", "2 blank"]
    rows = dict(found.rows())
    assert rows["tokens that count"] == "14 (63.6%)"
    assert rows["longest document"] == "10"
    assert rows["documents cut"] == "2 (50.0%)"
