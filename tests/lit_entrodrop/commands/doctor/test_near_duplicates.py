from random import Random

import pytest

from lit_entrodrop.commands.doctor import near_duplicates as index
from lit_entrodrop.commands.doctor.check import run_check
from lit_entrodrop.commands.doctor.data_checks import near_duplicates, train_duplicates
from lit_entrodrop.commands.doctor.near_duplicates import (
    COMPARED,
    MATCHES,
    THRESHOLD,
    NearDuplicateIndex,
    jaccard,
    shingles,
)
from lit_entrodrop.data.documents import Document
from tests.helpers.doctor import make_run
from tests.helpers.tiny import Tiny, texts, write_corpus


def long_texts(count: int) -> list[str]:
    """Make documents that share words, but hardly any five in a row."""
    random = Random(0)
    return [" ".join(f"w{random.randrange(500)}" for _ in range(80)) for _ in range(count)]


def test_distinct_documents_pass(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, long_texts(40))
    run = make_run(tiny)
    assert run_check(near_duplicates, run).status == "pass"
    result = run_check(train_duplicates, run)
    assert result.status == "pass"
    assert result.found.startswith("0.0% of ")


def test_near_duplicates_across_splits_fail_with_an_example(tiny: Tiny) -> None:
    write_corpus(
        tiny.corpus, [text + end for text in long_texts(30) for end in (".", " And more.")]
    )
    run = make_run(tiny)
    check = run_check(near_duplicates, run)
    assert check.status == "fail"
    assert "0 exact and" in check.found
    assert "e.g. 'w" in check.found
    assert "remove the copies" in check.remedy
    assert not run_check(train_duplicates, run).found.startswith("0.0%")


def test_what_validation_shares_is_left_out_of_training_and_no_fault(tiny: Tiny) -> None:
    own = long_texts(20)
    write_corpus(tiny.corpus, own)
    held_out = write_corpus(tiny.folder / "held_out.jsonl", [*own[:5], *texts(5)])
    with pytest.warns(UserWarning, match="5 documents of validation are in train too"):
        run = make_run(tiny, data={"validation": str(held_out)})
    assert run_check(near_duplicates, run).status == "pass"
    assert len(run.documents["train"]) == 15


def test_evaluation_sets_are_compared_with_training_text(tiny: Tiny) -> None:
    own = long_texts(22)
    write_corpus(tiny.corpus, own[:20])
    exam = write_corpus(tiny.folder / "exam.jsonl", [own[0] + " And more.", *own[20:]])
    run = make_run(tiny, data={"validation": 0.0, "evaluate": {"exam": str(exam)}})
    check = run_check(near_duplicates, run)
    assert check.status == "fail"
    assert "0 exact and 1 near duplicates of training documents among 3 exam" in check.found


def test_only_training_text_within_the_limit_counts(tiny: Tiny) -> None:
    run = make_run(tiny, data={"max_train_tokens": 100})
    whole = make_run(tiny)
    kept, everything = list(run.documents["train"]), list(whole.documents["train"])
    assert 0 < len(kept) < len(everything)
    assert kept == everything[: len(kept)]
    assert f"{len(kept)} documents" in run.data.summary()


def test_large_corpora_are_sampled_and_the_result_says_so(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "COMPARED", 5)
    check = run_check(near_duplicates, make_run(tiny))
    assert COMPARED == 10_000
    assert "compared with 5 sampled of " in check.found


def test_index_finds_what_comparing_all_pairs_finds() -> None:
    base = long_texts(60)
    cut = [" ".join(text.split()[:keep]) for text, keep in zip(base, range(20, 80), strict=True)]
    left, right = ([Document("text", text) for text in side] for side in (base, cut))
    index = NearDuplicateIndex(left, "")
    similar = [
        (i, j, jaccard(shingles(b), shingles(a)))
        for i, b in enumerate(cut)
        for j, a in enumerate(base)
    ]
    assert index.query(right, "") == [pair for pair in similar if pair[2] >= THRESHOLD]
    assert [pair[:2] for pair in index.query_itself()] == [(n, n) for n in range(60)]


def test_many_copies_are_compared_with_the_first() -> None:
    [text] = long_texts(1)
    copies = [Document("text", f"{text} {number}") for number in range(50)]
    pairs = NearDuplicateIndex(copies, "").query_itself()
    assert len(pairs) == 50 * MATCHES
    assert len({pair.queried for pair in pairs if pair.indexed < pair.queried}) == 49


@pytest.mark.parametrize(
    ("text", "same", "count"),
    [
        ("", "?!", 0),
        ("Two words", "two  WORDS!", 1),
        ("a b c d e f", "A, b. c d e f", 2),
        ("発熱と咳", "発 熱 と 咳", 1),
        ("naïve Straße", "NAÏVE straße", 1),
    ],
)
def test_shingles_of_any_script(text: str, same: str, count: int) -> None:
    assert len(shingles(text)) == count
    assert shingles(text).tolist() == shingles(same).tolist()


def test_shingles_depend_on_the_order_of_words() -> None:
    assert jaccard(shingles("a b c d e"), shingles("e d c b a")) == 0


def test_empty_documents_are_no_duplicates() -> None:
    empty = [Document("text", "..."), Document("text", "!!!")]
    assert NearDuplicateIndex(empty, "").query_itself() == []
