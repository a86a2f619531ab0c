import pytest

from lit_entrodrop.data.adjustments import BEYOND_LIMIT, BLANK, UNLABELED
from lit_entrodrop.data.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.data.packing import pack_documents
from tests.lit_entrodrop.data.test_blocks import random_documents


def test_description_tells_what_was_left_out() -> None:
    blocks = pack_documents(random_documents(1), block_size=16, pad_id=0)
    adjustments = {BLANK: 3, BEYOND_LIMIT: 4, UNLABELED: 0}
    line = PackedSplit(blocks, 30, duplicates=2, adjustments=adjustments).describe()
    assert "30 documents (2 exact duplicates)" in line
    assert f"{len(blocks)} blocks of 16, {blocks.padding:.1%} padding" in line
    assert line.endswith(f"padding; 4 {BEYOND_LIMIT}; 3 {BLANK}")


def test_only_names_of_splits_are_counted() -> None:
    assert PackedSplits().num_blocks("test") == 0
    with pytest.raises(ValueError, match=r"data\.test: expected .*, got none: set --data.test"):
        PackedSplits()["test"]
    with pytest.raises(ValueError, match=r"split: expected one of train, .*, got 'dev'"):
        PackedSplits().num_blocks("dev")


def test_nothing_is_evaluated_without_validation() -> None:
    split = PackedSplit(pack_documents(random_documents(1), 16, 0), documents=30, duplicates=0)
    assert PackedSplits(clean_train=split).evaluated == []
    assert PackedSplits(clean_train=split, validation=split).evaluated == [
        "validation",
        "clean_train",
    ]
