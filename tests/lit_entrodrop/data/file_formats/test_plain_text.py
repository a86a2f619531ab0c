from pathlib import Path
from random import Random

import pytest

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import CorpusFile, read_file
from lit_entrodrop.data.file_formats.plain_text import split_at_separators, split_into_groups
from tests.lit_entrodrop.data.conftest import sentence
from tests.lit_entrodrop.data.file_formats.conftest import write


def test_text_is_cut_at_separators(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n\ntwo\n<|endoftext|>\r\n\nthree <|endoftext|>four\n")
    expected = ["one\n\ntwo\n", "\nthree", "four\n"]
    for alone in (True, False):
        assert [
            document.content for document in read_file(CorpusFile(path, alone=alone))
        ] == expected
    within = write(tmp_path / "b.txt", "doc one<|endoftext|>doc two<|endoftext|>doc three")
    parts = [document.content for document in read_file(CorpusFile(within))]
    assert parts == ["doc one", "doc two", "doc three"]
    assert list(split_at_separators(["plain"])) == ["plain"]


def test_text_without_separators_is_one_document_among_others(tmp_path: Path) -> None:
    text = "\n\n".join(sentence(Random(0), 200) for _ in range(20))
    path = write(tmp_path / "a.txt", text)
    assert list(read_file(CorpusFile(path, alone=False))) == [Document("text", text)]
    assert len(list(read_file(CorpusFile(path)))) > 3


@pytest.mark.parametrize("joint", ["\n\n", "\n", "\r\n \r\n", "\n\n\n\n"])
def test_groups_give_the_text_back_in_bounded_pieces(joint: str) -> None:
    random = Random(1)
    text = joint.join(sentence(random, 15) for _ in range(400)) + "\n\n"
    groups = list(split_into_groups(text.splitlines(keepends=True)))
    assert "".join(groups) == text
    assert len(groups) > 3
    assert all(4_000 <= len(group) <= 8_300 for group in groups[:-1])
    longer = list(split_into_groups((text + "more text at the end").splitlines(keepends=True)))
    assert longer[: len(groups) - 1] == groups[:-1]


def test_blank_lines_at_the_end_are_no_group_of_their_own() -> None:
    lines = ["one\n", "\n", "two\n", "\n", " \n", "\f\n"]
    assert list(split_into_groups(lines, characters=3)) == ["one\n\n", "two\n\n \n\f\n"]


@pytest.mark.parametrize("joint", ["\n\n", "\n", " "])
@pytest.mark.parametrize("sentences", [20, 100, 2000])
def test_a_small_file_gives_enough_documents_to_split(
    tmp_path: Path, joint: str, sentences: int
) -> None:
    random = Random(2)
    text = joint.join(sentence(random, 15) for _ in range(sentences))
    parts = [d.content for d in read_file(CorpusFile(write(tmp_path / "a.txt", text)))]
    assert "".join(parts) == text
    assert len(parts) >= 7
    assert max(map(len, parts)) <= 3 * 4_000
