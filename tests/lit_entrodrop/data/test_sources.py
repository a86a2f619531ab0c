from pathlib import Path

import datasets
import pytest

from lit_entrodrop.data.reading import Reading
from lit_entrodrop.data.sources import describe_unread, digest_corpus, list_files, read_corpus
from tests.lit_entrodrop.data.conftest import write_jsonl


def contents(*sources: str | Path) -> list[str]:
    return [document.content for document in read_corpus([str(s) for s in sources], Reading())]


def test_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("third\n\nstill third")
    (tmp_path / "b.txt").write_text("second")
    write_jsonl(tmp_path / "a.jsonl", [{"text": "first"}])
    (tmp_path / "README.md").write_text("no")
    (tmp_path / ".git" / "a.txt").write_text("no")
    assert contents(tmp_path) == ["first", "second", "third\n\nstill third"]
    assert contents(tmp_path / "b.txt", tmp_path / "a.jsonl") == ["second", "first"]


def test_files_of_a_folder_that_are_not_read_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "B.TXT").write_text("two")
    for name in ("c.jsonl.gz", "notes.md", "sub/paper.pdf", ".hidden", ".git/config"):
        (folder / name).write_text("no")
    assert contents(folder) == ["two", "one"]
    described = describe_unread([str(folder), str(folder / "a.txt"), "registry:python"])
    assert described.startswith(f"{folder}: 3 files not read, because their suffix is none of .csv")
    assert described.endswith(": c.jsonl.gz, notes.md, sub/paper.pdf")
    for number in range(20):
        (folder / f"{number}.md").write_text("no")
    assert describe_unread([str(folder)]).endswith(", ...")


def test_hub_reads_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "org").mkdir()
    write_jsonl(tmp_path / "org" / "train.jsonl", [{"text": "one"}, {"text": "two"}])
    source = f"hub:{tmp_path / 'org'}"
    assert contents(source) == ["one", "two"]
    assert contents(f"{source}:default") == ["one", "two"]
    assert digest_corpus([source], Reading()) == digest_corpus([source], Reading())


def test_registry_reads_a_named_corpus() -> None:
    assert len(contents("registry:python")) > 100


def test_registry_refusal_passes_through() -> None:
    with pytest.raises(ValueError, match="no-such-corpus"):
        contents("registry:no-such-corpus")


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist.*Check the path"):
        list_files(tmp_path / "none.txt")


def test_unknown_extension_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"a\.docx.*\.txt.*'\.docx'.*convert"):
        list_files(tmp_path / "a.docx")


def test_folder_without_supported_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"no supported file.*\.jsonl.*Add one"):
        list_files(tmp_path)


def test_digest_sees_content_and_not_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one")
    second.write_text("one")
    assert digest_corpus([str(first)], Reading()) == digest_corpus([str(second)], Reading())
    second.write_text("two")
    assert digest_corpus([str(first)], Reading()) != digest_corpus([str(second)], Reading())
