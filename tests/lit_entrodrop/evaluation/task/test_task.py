import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lit_entrodrop.evaluation.task.encoding import encode_answer, encode_prompt
from lit_entrodrop.evaluation.task.settings import TaskSettings
from lit_entrodrop.evaluation.task.task import Task
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.runtime.ranks import DataRank
from tests.helpers.tiny import Tiny

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_module: Tiny) -> Any:
    return AutoTokenizer.from_pretrained(tiny_module.tokenizer)


def task(
    tmp_path: Path,
    tokenizer: Any,
    *rows: dict[str, Any],
    context: float = math.inf,
    **settings: Any,
) -> Task:
    file = tmp_path / "exam.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task(TaskSettings(str(file), **settings), tokenizer, context)


def test_prompts_have_the_tokens_of_training(tokenizer: Any, tiny_module: Tiny) -> None:
    corpus = tiny_module.folder / "pair.jsonl"
    corpus.write_text(json.dumps({"prompt": "mild fever", "completion": " of the heart"}))
    data = tiny_module.data(corpus=str(corpus), validation=0.0)
    data.prepare_data()
    data.setup()
    row = data.blocks("train")[0]
    labels = row["labels"].tolist()
    ids = row["input_ids"].tolist()
    asked = encode_prompt("mild fever", tokenizer)
    answered = encode_answer("mild fever", " of the heart", tokenizer)
    assert ids[: len(asked)] == asked
    assert [label for label in labels if label != -100] == [*answered, tokenizer.eos_token_id]


def test_a_chat_ends_with_the_start_of_the_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    try:
        ids = encode_prompt([{"role": "user", "content": "why"}], tokenizer)
    finally:
        tokenizer.chat_template = None
    assert tokenizer.decode(ids) == "<|user|>why</s><|assistant|>"
    assert tokenizer.eos_token_id in ids


def test_a_chat_without_a_template_is_refused_by_its_row(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"exam\.jsonl line 1: tokenizer .* has no chat template"):
        task(tmp_path, tokenizer, {"prompt": "why", "answer": "a"}, chat=True)


def test_long_prompts_keep_their_end(tmp_path: Path, tokenizer: Any, tiny: Tiny) -> None:
    rows = [{"prompt": "two weeks " * 20, "answer": "a"}, {"prompt": "two", "answer": "a"}]
    with pytest.warns(UserWarning, match="1 of 2 prompts lost their beginning"):
        made = task(tmp_path, tokenizer, *rows, context=20, max_new_tokens=4)
    scores = made.score(build_causal_lm(tiny.lm()), DataRank(1, 0, True))
    assert len(scores) == 2
    assert scores[0].prompt == rows[0]["prompt"]


def test_answers_that_cannot_fit_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    row = {"prompt": "why", "answer": ["heart " * 30, "heart " * 20], "choices": ["a " * 30, "b"]}
    with pytest.raises(ValueError, match=r"line 1: expected an answer of at most 8 tokens, got"):
        task(tmp_path, tokenizer, row, max_new_tokens=8)
    with pytest.raises(ValueError, match=r"line 1: expected room for a prompt in the context"):
        task(tmp_path, tokenizer, row | {"answer": "b"}, metric="choice", context=16)


def test_an_output_ends_at_a_stop_text(tmp_path: Path, tokenizer: Any) -> None:
    made = task(tmp_path, tokenizer, {"prompt": "why", "answer": "a"}, stop=["\n", "of"])
    ids = tokenizer("heart of\nfever")["input_ids"]
    assert made._text(ids) == "heart "
    assert made._ends(ids)
    assert not made._ends(tokenizer("heart")["input_ids"])
    assert made._ends([*tokenizer("heart")["input_ids"], tokenizer.eos_token_id])
