import pytest

from lit_entrodrop.data.adjustments import BEYOND_LIMIT, BLANK, UNLABELED
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.preparing.packed_splits import (
    PackedSplit,
    PackedSplits,
    check_evaluation_sets,
)
from tests.lit_entrodrop.data.packing.test_blocks import random_documents


def test_description_names_what_was_omitted() -> None:
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


def test_only_held_out_splits_let_others_be_evaluated() -> None:
    split = PackedSplit(pack_documents(random_documents(1), 16, 0), documents=30, duplicates=0)
    assert PackedSplits(train=split, clean_train=split, forgetting=split).evaluated == []
    named = ("train", "validation", "test", "exam", "forgetting", "clean_train")
    splits = PackedSplits(dict.fromkeys(named, split))
    assert splits.evaluated == ["validation", "exam", "clean_train", "forgetting"]
    assert splits.held_out == ["validation", "exam"]
    assert splits.num_blocks("exam") == len(split.blocks)
    without = PackedSplits(exam=split, clean_train=split)
    assert without.evaluated == ["exam", "clean_train"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"my exam": "a"}, "a name of at most 64 letters, digits, _ and -, got 'my exam': rename"),
        ({"": "a"}, "a name of at most 64 letters, digits, _ and -, got ''"),
        ({"a/b": "a"}, "a name of at most 64 letters, digits, _ and -, got 'a/b'"),
        ({"a" * 65: "a"}, "a name of at most 64 letters, digits, _ and -, got 'aaa"),
        ({"val": "a"}, "a name that no other data or metric has, got 'val'"),
        ({"Test": "a"}, "a name that no other data or metric has, got 'Test'"),
        ({"loss": "a"}, "a name that no other data or metric has, got 'loss'"),
        ({"exam": "a", "Exam": "b"}, "names that differ by more than case, got 'Exam'"),
        ({"exam": 0.1}, "a separate corpus, named as in data.corpus, got 0.1: for a share of"),
    ],
)
def test_bad_evaluation_set_is_refused(sets: dict[str, str | float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.evaluate.*: expected {message}"):
        check_evaluation_sets(sets)
