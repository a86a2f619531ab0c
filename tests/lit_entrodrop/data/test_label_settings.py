import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import CONTINUED, DROPPED, NEAREST_CONTEXT, TOO_FAR
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.label_settings import LabelSettings
from lit_entrodrop.data.preparing.packed_splits import PackedSplit
from lit_entrodrop.data.preparing.preparation import prepare_split
from lit_entrodrop.data.preparing.stored_documents import store_documents
from tests.lit_entrodrop.data.conftest import DataModuleFactory, write_jsonl

PROMPT = "pain and rest " * 30
SHORT = Document("completion", json.dumps(["pain", " acute renal"]), "a.jsonl line 1")
LONG = Document("completion", json.dumps([PROMPT, " fever of two weeks"]), "a.jsonl line 2")
LONG_ANSWER = Document(
    "completion", json.dumps(["pain", " fever and cough" * 20]), "a.jsonl line 3"
)


def prepare(
    documents: list[Document], tokenizer: PreTrainedTokenizerBase, **settings: Any
) -> PackedSplit:
    labels = LabelSettings(**settings)
    stored = store_documents(documents, seed=0)
    return prepare_split(stored, tokenizer, block_size=16, packing=False, labels=labels)


def learned(split: PackedSplit, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text that the loss counts in each block."""
    labels = (split.blocks[number]["labels"] for number in range(len(split.blocks)))
    return [tokenizer.decode(row[row != -100]) for row in labels]


def test_default_cuts_the_prompt_on_the_left(tokenizer: PreTrainedTokenizerBase) -> None:
    split = prepare([SHORT, LONG], tokenizer)
    assert learned(split, tokenizer) == [" acute renal</s>", " fever of two weeks</s>"]
    text = tokenizer.decode(split.blocks[1]["input_ids"])
    assert text.endswith("pain and rest  fever of two weeks</s>")
    tokens = len(tokenizer(PROMPT)["input_ids"]) + len(
        tokenizer(" fever of two weeks")["input_ids"]
    )
    assert +Counter(split.adjustments) == {NEAREST_CONTEXT: 1, TOO_FAR: tokens - 16}


@pytest.mark.parametrize(("setting", "context"), [("truncate_prompt", 8), ("split", 1)])
def test_long_answer_is_learned_once_beside_its_context(
    tokenizer: PreTrainedTokenizerBase, setting: str, context: int
) -> None:
    split = prepare([LONG_ANSWER], tokenizer, long_pairs=setting)
    assert "".join(learned(split, tokenizer)) == " fever and cough" * 20 + "</s>"
    firsts = [
        int((split.blocks[n]["labels"] != -100).nonzero()[0]) for n in range(len(split.blocks))
    ]
    # The last chunk is short, and has more context.
    assert firsts[1:-1] == [context] * (len(firsts) - 2)
    assert split.adjustments[CONTINUED] == 1


def test_long_pairs_are_dropped_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    documents = [LONG, SHORT, LONG_ANSWER, Document("text", PROMPT)]
    split = prepare(documents, tokenizer, long_pairs="drop")
    expected = prepare([SHORT, Document("text", PROMPT)], tokenizer)
    assert split.blocks.fingerprint == expected.blocks.fingerprint
    assert (split.documents, split.adjustments[DROPPED]) == (2, 2)
    with pytest.raises(ValueError, match=r"2 prompts .* dropped .* raise data.block_size, or set"):
        prepare([LONG, LONG_ANSWER], tokenizer, long_pairs="drop")


def test_long_pair_is_an_error_of_its_row(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(
        ValueError, match=r"^a\.jsonl line 2: expected .* at most 16 tokens .*, got \d+\. Shorten"
    ):
        prepare([SHORT, LONG], tokenizer, long_pairs="error")
    prepare([SHORT, Document("text", PROMPT)], tokenizer, long_pairs="error")


def test_all_counts_the_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    split = prepare([SHORT], tokenizer, train_on="all")
    assert learned(split, tokenizer) == ["pain acute renal</s>"]
    last = prepare([SHORT], tokenizer, train_on="last_turn")
    assert learned(last, tokenizer) == [" acute renal</s>"]


@pytest.mark.parametrize("setting", ["train_on", "long_pairs"])
def test_other_values_are_refused(setting: str, datamodule: DataModuleFactory) -> None:
    with pytest.raises(ValueError, match=rf"data\.{setting}: expected .* or .*, got 'answers'"):
        datamodule(**{setting: "answers"})


def test_settings_rebuild_the_blocks(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} {PROMPT}", "completion": " rest"} for n in range(9)]
    corpus = str(write_jsonl(tmp_path / "pairs.jsonl", rows))
    prints = set()
    for settings in ({}, {"train_on": "all"}, {"long_pairs": "split"}):
        module = datamodule(corpus=corpus, block_size=33, **settings)
        module.setup()
        prints.add(module.fingerprint("train"))
    assert len(prints) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 3
