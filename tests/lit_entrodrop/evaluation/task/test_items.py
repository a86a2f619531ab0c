import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.evaluation.task.items import read_items
from lit_entrodrop.evaluation.task.settings import TaskSettings


def items_of(tmp_path: Path, *rows: Any, **settings: Any) -> Any:
    file = tmp_path / "exam.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_items(TaskSettings(str(file), **settings))


def test_one_answer_or_several_of_any_plain_type(tmp_path: Path) -> None:
    found = items_of(
        tmp_path,
        {"question": "2 + 2 =", "reply": 4},
        {"question": "Is water wet?", "reply": [True, "yes"]},
        prompt="question",
        answer="reply",
    )
    assert [item.answers for item in found] == [("4",), ("true", "yes")]
    assert found[1].where.endswith("exam.jsonl line 2")


def test_numbers_of_compressed_tables_are_texts(tmp_path: Path) -> None:
    table = tmp_path / "exam.csv.gz"
    table.write_bytes(gzip.compress(b"prompt,answer\n2 + 2 =,4\n1 + 1 =,2\n"))
    assert [item.answers for item in read_items(TaskSettings(str(table)))] == [("4",), ("2",)]


def test_choices_are_named_by_text_or_by_number(tmp_path: Path) -> None:
    table = tmp_path / "exam.parquet"
    import pandas as pd

    pd.DataFrame(
        {"prompt": ["a", "b"], "answer": ["x", "1"], "choices": [["x", "y"], ["0", "2"]]}
    ).to_parquet(table)
    first, second = read_items(TaskSettings(str(table), metric="choice"))
    assert (first.answers, second.answers) == (("x",), ("2",))
    assert second.choices == ("0", "2")


def test_chats_are_kept_and_texts_become_chats(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    rows = [{"prompt": chat, "answer": "a"}, {"prompt": "Why?", "answer": "a"}]
    given, made = items_of(tmp_path, *rows, chat=True)
    assert given.prompt == chat
    assert made.prompt == chat[1:]
    assert given.text == made.text == "Why?"


def test_items_of_a_large_file_are_at_equal_distances(tmp_path: Path) -> None:
    rows = [{"prompt": f"{number}", "answer": "a"} for number in range(10)]
    found = items_of(tmp_path, *rows, max_items=4)
    assert [item.prompt for item in found] == ["0", "2", "5", "7"]


CHOICE = {"prompt": "Which?", "choices": ["a", "b"]}


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"prompt": "Why?"}, {}, "expected a column 'answer' with a value, got the col"),
        ({"prompt": "Why?", "answer": None}, {}, "column 'answer' with a value, got null or empty"),
        ({"prompt": " ", "answer": "a"}, {}, "a text or a list of texts in column 'prompt'"),
        ({"prompt": "Why?", "answer": {"a": 1}}, {}, "a list of texts in column 'answer'"),
        ({"prompt": "Why?", "answer": ["a", ""]}, {}, "a list of texts in column 'answer'"),
        ({"prompt": "Why?", "answer": float("nan")}, {}, "a list of texts in column 'answer'"),
        ({"prompt": float("inf"), "answer": "a"}, {}, "a list of texts in column 'prompt'"),
        ({"prompt": "Why?", "answer": ["a", None]}, {}, "a list of texts in column 'answer'"),
        ({"prompt": "Why?", "answer": "("}, {"metric": "regex"}, "expected a regular expression"),
        ({"prompt": "Why?", "answer": "a{9999999999}"}, {"metric": "regex"}, "a regular express"),
        ({"prompt": "Why?", "answer": "\ud800"}, {}, "a list of texts in column 'answer'"),
        (CHOICE | {"answer": "c"}, {"metric": "choice"}, "one of them or its number from 0"),
        (CHOICE | {"answer": 2}, {"metric": "choice"}, "one of them or its number from 0"),
    ],
)
def test_a_wrong_row_is_named(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    good = {"prompt": "Why?", "answer": "a", "choices": ["a", "b"]}
    with pytest.raises(ValueError, match=rf"monitors\.task: .*exam\.jsonl line 2: .*{message}"):
        items_of(tmp_path, good, row, **settings)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"monitors\.task\.file: expected a file .*\.jsonl"):
        read_items(TaskSettings(str(tmp_path / "none.jsonl")))


def test_stop_texts_are_not_empty() -> None:
    with pytest.raises(ValueError, match=r"monitors\.task\.stop: expected texts"):
        TaskSettings("exam.jsonl", stop=["\n", ""])
