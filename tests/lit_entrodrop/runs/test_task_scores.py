from pathlib import Path

import pytest

from lit_entrodrop.runs.task_scores import (
    ItemScore,
    read_all_task_scores,
    read_task_scores,
    remove_task_scores_after,
    task_scores_path,
    write_task_scores,
)

# Line separators of Unicode, which JSON does not escape.
SCORES = [ItemScore("exam line 1", "a\u2028b\x85c", ["d\r\n"], "\u2029", 0.5)] * 2


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = task_scores_path(tmp_path, 3)
    write_task_scores(path, SCORES)
    assert read_task_scores(path) == SCORES
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"task-step=3\.jsonl: expected the scores of a task"):
        read_task_scores(path)


def test_a_resumed_run_removes_later_scores_of_the_fit_alone(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        write_task_scores(task_scores_path(tmp_path, step), SCORES)
    write_task_scores(task_scores_path(tmp_path, 100, "test"), SCORES)
    remove_task_scores_after(tmp_path, 20)
    assert list(read_all_task_scores(tmp_path)) == [3, 20]
    assert task_scores_path(tmp_path, 100, "test").exists()
