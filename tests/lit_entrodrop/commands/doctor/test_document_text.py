from lit_entrodrop.commands.doctor.document_text import excerpt, first_difference, sample, text_of
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row


def test_chats_are_read_without_their_frame() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
    text = text_of(document_from_row({"messages": turns, "tools": [call]}, ReadingOptions(), ""))
    assert text.startswith("Hi [")
    assert "Rome" in text


def test_instructions_are_read_with_their_answers() -> None:
    row = {"instruction": "Sum", "input": "1 2", "output": "3"}
    assert text_of(document_from_row(row, ReadingOptions(), "")) == "Sum\n\n1 2 3"


def test_sample_is_spread_and_holds_each_once() -> None:
    documents = [Document("text", str(number)) for number in range(10)]
    assert [document.content for document in sample(documents, 4)] == ["0", "2", "5", "7"]
    assert sample(documents, 50) == documents


def test_difference_at_the_end_is_shown() -> None:
    assert first_difference("abc", "ab") == "'abc' -> 'ab'"


def test_excerpt_keeps_short_texts() -> None:
    assert excerpt("a\nb") == "'a b'"
