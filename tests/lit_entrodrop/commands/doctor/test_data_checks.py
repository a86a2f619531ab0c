from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_entrodrop.commands.doctor.check import CheckResult, run_check
from lit_entrodrop.commands.doctor.data_checks import (
    context_length,
    padding,
    skipped_or_changed,
    split_shares,
    tokenizer_round_trip,
    validation_size,
)
from lit_entrodrop.data.adjustments import BEYOND_LIMIT, BLANK
from tests.helpers.doctor import make_run
from tests.helpers.tiny import LLAMA, WORDS, Tiny, texts, write_corpus

CHECKS = (
    skipped_or_changed,
    tokenizer_round_trip,
    context_length,
    padding,
    validation_size,
    split_shares,
)


def words_tokenizer(folder: Path, known: list[str]) -> Path:
    """Save a tokenizer of whole words in lower case."""
    vocabulary = {word: index for index, word in enumerate(["</s>", "<pad>", "<unk>", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    return folder


def only(check: Any, tiny: Tiny, **settings: Any) -> CheckResult:
    return run_check(check, make_run(tiny, **settings))


def test_sound_text_passes(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(300, longest=6))
    run = make_run(tiny)
    found = [run_check(check, run) for check in CHECKS]
    assert [check.status for check in found] == ["pass"] * len(CHECKS), found
    assert found.pop(0).found == "nothing"
    assert "0.00% of their tokens are unknown; all decode" in found[0].found


def test_skipped_documents_are_reported_by_split_and_reason(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, [*texts(40), " ", "\n"])
    blank = only(skipped_or_changed, tiny)
    assert (blank.status, blank.found.count(BLANK)) == ("warn", 1)
    limited = only(
        skipped_or_changed,
        tiny,
        data={
            "corpus": str(write_corpus(tiny.folder / "few.jsonl", texts(40))),
            "max_train_tokens": 100,
        },
    )
    assert limited.status == "pass"
    assert limited.found.startswith("train: ")
    assert limited.found.endswith(BEYOND_LIMIT)


def test_what_the_tokenizer_loses_is_shown(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, [text.upper() for text in texts(60)])
    numbers = [str(number) for number in range(60)]
    tokenizer = words_tokenizer(tiny.folder / "words", [*WORDS, *numbers])
    check = only(tokenizer_round_trip, tiny, data={"tokenizer": str(tokenizer)})
    assert check.status == "warn"
    assert "change when decoded, e.g." in check.found
    assert " -> " in check.found


def test_unknown_tokens_fail(tiny: Tiny) -> None:
    tokenizer = words_tokenizer(tiny.folder / "words", WORDS[:3])
    check = only(tokenizer_round_trip, tiny, data={"tokenizer": str(tokenizer)})
    assert check.status == "fail"
    assert "byte-level" in check.remedy


def test_block_beyond_the_context_fails(tiny: Tiny) -> None:
    check = only(context_length, tiny, lm={"architecture": LLAMA}, data={"block_size": 65})
    assert check.status == "fail"
    assert check.remedy == "lower data.block_size to 64 or less"


def test_documents_that_are_cut_are_reported(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(60, longest=60))
    check = only(context_length, tiny)
    assert check.status == "warn"
    assert "sampled documents exceed a block" in check.found
    assert "raise data.block_size" in check.remedy


@pytest.mark.parametrize(("packing", "remedy"), [(False, "packing to true"), (True, "block_size")])
def test_much_padding_is_reported(tiny: Tiny, packing: bool, remedy: str) -> None:
    write_corpus(tiny.corpus, ["fever and cough " * 3 + str(n) for n in range(40)])
    # Two of them do not fit into a block.
    check = only(padding, tiny, data={"packing": packing, "block_size": 20})
    assert check.status == "warn"
    assert remedy in check.remedy


def test_few_validation_documents_are_reported(tiny: Tiny) -> None:
    check = only(validation_size, tiny)
    assert check.status == "warn"
    assert "30 documents or more" in check.remedy


def test_no_validation_fails(tiny: Tiny) -> None:
    check = only(validation_size, tiny, data={"validation": 0.0})
    assert check.status == "fail"
    assert "data.validation" in check.remedy


def test_size_of_evaluation_sets_is_checked(tiny: Tiny) -> None:
    exam = write_corpus(tiny.folder / "exam.jsonl", texts(41, seed=1))
    alone: dict[str, Any] = {"evaluate": {"exam": str(exam)}, "validation": 0.0}
    check = only(validation_size, tiny, data=alone)
    assert check.status == "warn"
    assert "no validation split" in check.found
    assert "exam 41 documents" in check.found
    write_corpus(exam, texts(9, seed=1))
    write_corpus(tiny.corpus, texts(300, longest=6))
    check = only(validation_size, tiny, data={**alone, "validation": 0.2})
    assert check.found.endswith(": the loss on exam depends on few documents")


def test_shares_far_from_those_asked_are_reported(tiny: Tiny) -> None:
    """One document holds most of the text."""
    write_corpus(tiny.corpus, [*texts(40, longest=3), "fever " * 2000])
    check = only(split_shares, tiny, data={"block_size": 64})
    assert check.status == "warn"
    assert "(20.0% configured)" in check.found
    assert "split_seed" in check.remedy


def test_corpora_of_their_own_have_no_share(tiny: Tiny) -> None:
    own = write_corpus(tiny.folder / "own.jsonl", texts(5, seed=1))
    assert only(split_shares, tiny, data={"validation": str(own)}).status == "pass"


def test_limit_of_training_text_is_no_fault_of_the_split(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(300, longest=6))
    check = only(split_shares, tiny, data={"max_train_tokens": 100})
    assert check.status == "pass"
    assert "of tokens" not in check.found
