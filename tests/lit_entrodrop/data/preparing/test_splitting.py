from pathlib import Path
from random import Random

import pytest
from scipy import stats

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.preparing.splitting import (
    SPLITS,
    positions,
    read_and_split,
    split_documents,
    split_shares,
)
from lit_entrodrop.data.preparing.stored_documents import store_documents
from lit_entrodrop.data.reading_options import ReadingOptions
from tests.lit_entrodrop.data.conftest import texts, write_jsonl

DOCUMENTS = [Document("text", f"document {n}") for n in range(2_000)]


def split(documents: list[Document], seed: int = 0) -> dict[str, list[Document]]:
    sides = split_documents(store_documents(documents, seed), validation=0.2, test=0.1)
    return {name: list(side) for name, side in sides.items()}


def side_of(documents: list[Document], seed: int = 0) -> dict[Document, str]:
    sides = split(documents, seed)
    return {document: side for side in SPLITS for document in sides[side]}


def test_positions_are_uniform() -> None:
    digests = store_documents(DOCUMENTS, seed=0).digests
    assert stats.kstest(positions(digests), "uniform").pvalue > 0.01


def test_seeds_are_independent() -> None:
    pairs = [positions(store_documents(DOCUMENTS, seed).digests) for seed in (0, 1)]
    assert abs(stats.pearsonr(*pairs).statistic) < 0.1


def test_shares_are_met() -> None:
    sides = split(DOCUMENTS)
    asked = {"train": 0.7, "validation": 0.2, "test": 0.1, "holdout": 0.0}
    shares = {split: len(sides[split]) / len(DOCUMENTS) for split in SPLITS}
    assert shares == pytest.approx(asked, abs=0.03)


def test_split_is_a_function_of_seed_and_content() -> None:
    shuffled = Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    assert side_of(DOCUMENTS) == side_of(shuffled)
    assert split(DOCUMENTS) == split(shuffled)
    assert side_of(DOCUMENTS) != side_of(DOCUMENTS, seed=1)


def test_documents_keep_their_side_when_others_are_added() -> None:
    before, after = side_of(DOCUMENTS[:500]), side_of(DOCUMENTS)
    assert all(after[document] == side for document, side in before.items())


def test_exact_duplicates_share_a_side() -> None:
    sides = split(DOCUMENTS * 2)
    for first in SPLITS:
        assert all(not set(sides[first]) & set(sides[other]) for other in SPLITS if other != first)
    assert sum(len(side) - len(set(side)) for side in sides.values()) == len(DOCUMENTS)


def corpus(path: Path, contents: list[str]) -> str:
    return str(write_jsonl(path, [{"text": content} for content in contents]))


def test_validation_may_have_its_own_corpus(tmp_path: Path) -> None:
    train, own = texts(20), texts(5, seed=1)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    sides = read_and_split(
        paths[:1], {"validation": paths[1], "test": 0.0}, ReadingOptions(), split_seed=0
    )
    assert sides.keys() == {"train", "validation"}
    assert {document.content for document in sides["train"]} == set(train)
    assert [document.content for document in sides["validation"]] == own


def test_documents_shared_with_an_own_corpus_leave_training(tmp_path: Path) -> None:
    train, own = texts(20), texts(5)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    with pytest.warns(UserWarning, match=r"5 documents of test are.*left out of train,"):
        sides = read_and_split(
            [paths[0]], {"validation": 0.0, "test": paths[1]}, ReadingOptions(), 0
        )
    assert {document.content for document in sides["train"]} == set(train) - set(own)


def test_documents_shared_with_an_evaluation_set_leave_training_and_holdout(tmp_path: Path) -> None:
    train, exam, holdout = texts(40), texts(9), texts(30)
    contents = {"train": train, "exam": exam, "holdout": holdout}
    paths = {name: corpus(tmp_path / f"{name}.jsonl", rows) for name, rows in contents.items()}
    sources = {"validation": 0.2, "test": 0.0, "holdout": paths["holdout"], "exam": paths["exam"]}
    with pytest.warns(UserWarning, match=r"documents of exam are in (train|holdout) too"):
        sides = read_and_split([paths["train"]], sources, ReadingOptions(), 0)
    assert list(sides) == ["train", "validation", "holdout", "exam"]
    assert [document.content for document in sides["exam"]] == exam
    seen = {document.content for name in ("train", "holdout") for document in sides[name]}
    assert not seen & set(exam)


def test_holdout_is_neither_trained_nor_evaluated_on(tmp_path: Path) -> None:
    train, own = texts(40), texts(30)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    held_out: dict[str, float | str] = {"validation": 0.3, "test": 0.2}
    without = read_and_split([paths[0]], held_out, ReadingOptions(), 0)
    with pytest.warns(UserWarning, match="documents of .* left out of holdout"):
        sides = read_and_split([paths[0]], {**held_out, "holdout": paths[1]}, ReadingOptions(), 0)
    assert all(list(sides[name]) == list(without[name]) for name in held_out)
    assert not set(sides["holdout"]) & {d for name in ("train", *held_out) for d in sides[name]}
    dealt = {document.content for side in sides.values() for document in side}
    assert dealt == set(train) | set(own)


def test_share_for_holdout_is_taken_from_training_alone(tmp_path: Path) -> None:
    path, held_out = corpus(tmp_path / "train.jsonl", texts(200)), {"validation": 0.2, "test": 0.1}
    without = read_and_split([path], held_out, ReadingOptions(), 0)
    zero = read_and_split([path], {**held_out, "holdout": 0.0}, ReadingOptions(), 0)
    assert {name: list(side) for name, side in zero.items()} == {
        name: list(side) for name, side in without.items()
    }
    sides = read_and_split([path], {**held_out, "holdout": 0.25}, ReadingOptions(), 0)
    assert all(list(sides[name]) == list(without[name]) for name in held_out)
    assert set(sides["train"]) | set(sides["holdout"]) == set(without["train"])
    assert len(sides["holdout"]) == pytest.approx(50, abs=15)


def test_holdout_of_evaluated_documents_alone_is_refused(tmp_path: Path) -> None:
    path, own = corpus(tmp_path / "a.jsonl", texts(20)), corpus(tmp_path / "b.jsonl", ["Own."])
    held_out = {"validation": own, "test": 0.0, "holdout": own}
    with (
        pytest.warns(UserWarning, match="1 documents of validation are in holdout"),
        pytest.raises(ValueError, match=r"no document for holdout: .* or to a separate corpus"),
    ):
        read_and_split([path], held_out, ReadingOptions(), 0)


@pytest.mark.parametrize("count", [4, 5, 8])
def test_each_share_of_a_few_documents_gets_one(count: int) -> None:
    documents = [Document("text", f"{n}") for n in range(count)]
    for seed in range(20):
        stored = store_documents([*documents, *documents[:2]], seed)
        sides = split_documents(stored, validation=0.1, test=0.1, holdout=0.1)
        contents = [{d.content for d in side} for side in sides.values()]
        assert all(contents)
        assert sum(map(len, contents)) == count


def test_split_without_documents_is_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "one.jsonl", ["The only one."])
    with pytest.raises(ValueError, match=r"no document for .*of 1 documents .*Give"):
        read_and_split([path], {"validation": 0.5, "test": 0.0}, ReadingOptions(), split_seed=0)


def test_shares_are_those_of_the_settings() -> None:
    assert split_shares({"validation": 0.1, "test": 0.2}) == {"validation": 0.1, "test": 0.2}
    assert split_shares({"validation": "other.txt", "test": 0}) == {"validation": 0, "test": 0}


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.5, 0.5), (1.0, "a.txt"), (float("nan"), 0.0)])
def test_bad_shares_are_refused(shares: tuple[float | str, float | str]) -> None:
    with pytest.raises(ValueError, match=r"less than 1, got .*Use for example"):
        split_shares(dict(zip(("validation", "test"), shares, strict=True)))


def test_holdout_counts_among_the_shares() -> None:
    with pytest.raises(ValueError, match=r"less than 1, got validation 0.5, test 0.2, holdout 0.3"):
        split_shares({"validation": 0.5, "test": 0.2, "holdout": 0.3})
