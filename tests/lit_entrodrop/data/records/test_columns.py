from pathlib import Path

import pytest

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import check_format_settings, document_from_row
from tests.lit_entrodrop.data.conftest import DataModuleFactory, texts, write_jsonl


def test_own_names_take_the_place_of_standard_ones() -> None:
    swapped = ReadingOptions(columns={"prompt": "completion", "completion": "prompt"})
    document = document_from_row({"prompt": "A", "completion": "Q"}, swapped, "")
    assert document.content == '["Q", "A"]'


def test_errors_explain_own_names() -> None:
    options = ReadingOptions(columns={"prompt": "question", "completion": "answer"})
    with pytest.raises(ValueError, match=r"'prompt', got int.*reads 'question' as 'prompt', 'ans"):
        document_from_row({"question": 3, "answer": "A"}, options, "a.csv row 2")
    with pytest.raises(ValueError, match=r"'answer \(null\)'.* Fill 'answer', or remove the row"):
        document_from_row({"question": "Q", "answer": None}, options, "a.csv row 2")


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (
            {"question": "prompt"},
            "expected names for completion, conversations, functions, history, .*, got one for "
            "'question'.*{prompt: question}",
        ),
        ({"prompt": "a", "completion": "a"}, "expected .*, got 'a' for 'prompt' and 'completion'"),
    ],
)
def test_wrong_names_are_refused(columns: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.columns: {named}"):
        check_format_settings(ReadingOptions(columns=columns))


def test_column_that_no_record_has_is_refused(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    rows = [{"question": text, "answer": text, "id": 3} for text in texts(20)]
    corpus = str(write_jsonl(tmp_path / "a.jsonl", rows))
    columns = {"prompt": "question", "completion": "answer", "system": "sytem"}
    named = r"data\.columns: .* 'sytem' for 'system', .* Their columns are answer, id, question\."
    with pytest.raises(ValueError, match=named):
        datamodule(corpus=corpus, columns=columns).setup()
    del columns["system"]
    data = datamodule(corpus=corpus, columns=columns)
    data.setup()
    assert data.splits["train"].formats.keys() == {"prompt_completion"}
