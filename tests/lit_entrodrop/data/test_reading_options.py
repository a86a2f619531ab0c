import pytest

from lit_entrodrop.data.reading_options import ReadingOptions


@pytest.mark.parametrize("encoding", ["utf8", "UTF-16-LE", "cp1252", "shift_jis", "gb18030"])
def test_text_codecs_are_encodings(encoding: str) -> None:
    assert ReadingOptions(encoding=encoding).encoding == encoding


@pytest.mark.parametrize("encoding", ["utf-9", "", "base64", "rot13", "a\0b"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"data\.encoding: expected a text codec .* Correct"):
        ReadingOptions(encoding=encoding)


@pytest.mark.parametrize("delimiter", ["", ";;", "tab", '"', "\n"])
def test_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(ValueError, match=r"data\.delimiter: expected one character.*Use null"):
        ReadingOptions(delimiter=delimiter)


def test_tab_may_be_written_as_in_a_shell() -> None:
    assert ReadingOptions(delimiter=r"\t") == ReadingOptions(delimiter="\t")
