import gzip
from pathlib import Path

import pytest

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.sources import count_bytes, digest_corpus, read_corpus
from tests.lit_entrodrop.data.conftest import texts, write_jsonl


def contents(*sources: str | Path) -> list[str]:
    return [
        document.content for document in read_corpus([str(s) for s in sources], ReadingOptions())
    ]


def test_sources_are_read_in_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "first"}, {"text": "second"}])
    (tmp_path / "b.txt").write_text("third")
    assert contents(tmp_path / "b.txt", tmp_path) == ["third", "first", "second", "third"]


def test_registry_reads_a_named_corpus() -> None:
    assert len(contents("registry:hpo")) > 100


def test_registry_refusal_passes_through() -> None:
    with pytest.raises(ValueError, match="no-such-corpus"):
        contents("registry:no-such-corpus")


def test_digest_sees_content_and_not_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one")
    second.write_text("one")
    assert digest_corpus([str(first)], ReadingOptions()) == digest_corpus(
        [str(second)], ReadingOptions()
    )
    second.write_text("two")
    assert digest_corpus([str(first)], ReadingOptions()) != digest_corpus(
        [str(second)], ReadingOptions()
    )


def test_digest_sees_the_options_and_the_format(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.csv", "a.tsv", "a.csv.gz"):
        (tmp_path / name).write_text("text\none\n")
        for options in (
            ReadingOptions(),
            ReadingOptions(encoding="cp1252"),
            ReadingOptions(delimiter=";"),
        ):
            digests.add(digest_corpus([str(tmp_path / name)], options))
    assert len(digests) == 9


def test_bytes_of_compressed_files_are_estimated(tmp_path: Path) -> None:
    content = "".join(texts(300)).encode()
    (tmp_path / "a.txt").write_bytes(content)
    assert count_bytes([str(tmp_path), "registry:python"]) == len(content)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(content))
    assert 1.5 * len(content) < count_bytes([str(tmp_path)]) < 3 * len(content)


def test_blank_source_is_not_the_working_directory() -> None:
    with pytest.raises(ValueError, match=r"expected the path or name of a source, got ''"):
        list(read_corpus([""], ReadingOptions()))
