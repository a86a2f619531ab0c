from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from lit_entrodrop.data.sources import describe_unread, list_files
from tests.lit_entrodrop.data.sources.test_sources import contents


def dataset(*texts: str) -> Dataset:
    return Dataset.from_list([{"text": text} for text in texts])


def test_saved_dataset_is_read(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(12)]
    dataset(*texts).save_to_disk(tmp_path / "saved", num_shards=11)
    assert contents(tmp_path / "saved") == texts
    assert describe_unread([str(tmp_path / "saved")]) == ""
    with pytest.raises(ValueError, match=r"saved\[test\]: expected a folder with splits.*Remove"):
        list_files(tmp_path / "saved[test]")


def test_split_is_chosen_by_name(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    DatasetDict({"train": dataset("one"), "test": dataset("two")}).save_to_disk(saved)
    assert contents(saved) == contents(f"{saved}[train]") == ["one"]
    assert contents(f"{saved}[test]") == ["two"]
    assert contents(saved / "test") == ["two"]
    assert describe_unread([str(saved)]).endswith("saved: splits not read: test")
    with pytest.raises(ValueError, match=r"splits train, test, got 'exam'.*saved\[train\]"):
        list_files(tmp_path / "saved[exam]")
    with pytest.raises(FileNotFoundError, match=r"other\[test\] does not exist"):
        list_files(tmp_path / "other[test]")


def test_splits_without_train_are_listed(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    DatasetDict({"dev": dataset("one"), "test": dataset("two")}).save_to_disk(saved)
    with pytest.raises(ValueError, match=r"splits dev, test, got 'train'. .*saved\[dev\]"):
        list_files(saved)


def test_brackets_in_a_name_are_no_split(tmp_path: Path) -> None:
    (tmp_path / "notes[test]").mkdir()
    (tmp_path / "notes[test]" / "a[1].txt").write_text("one")
    assert contents(tmp_path / "notes[test]") == contents(tmp_path / "notes[test]" / "a[1].txt")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    dataset("one", "two").save_to_disk(tmp_path, num_shards=2)
    (tmp_path / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ValueError, match=r"expected the file data-00001-of-.*Copy or save"):
        list_files(tmp_path)


@pytest.mark.parametrize("index", ["{", "{}", '{"_data_files": [{"filename": "../a.arrow"}]}'])
def test_damaged_index_is_refused(index: str, tmp_path: Path) -> None:
    dataset("one").save_to_disk(tmp_path)
    (tmp_path / "state.json").write_text(index)
    with pytest.raises(ValueError, match=r"state\.json: expected what save_to_disk writes, got"):
        list_files(tmp_path)


def test_folder_with_another_state_is_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"text": "one"}')
    assert contents(tmp_path) == ["one"]
