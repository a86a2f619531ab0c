"""Scores of the items of a task, in a run folder: ``evaluations/task-step=N.jsonl``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lit_entrodrop.runs.evaluations import FOLDER
from lit_entrodrop.runs.metric_name import TASK
from lit_entrodrop.runs.writing import write_whole


@dataclass(frozen=True)
class ItemScore:
    """Score of an item of a task.

    Attributes:
        where: File and row of the item.
        prompt: The prompt; of a chat its last message.
        answers: Right answers.
        output: Output of the model.
        score: Score, in [0, 1].
    """

    where: str
    prompt: str
    answers: list[str]
    output: str
    score: float


def task_scores_path(folder: str | Path, step: int, split: str | None = None) -> Path:
    """Return the path of the scores after an optimizer step.

    ``split`` is the split that `validate` or `test` evaluated; None for scores during `fit`.
    """
    prefix = TASK if split is None else f"{split}-{TASK}"
    return Path(folder) / FOLDER / f"{prefix}-step={step}.jsonl"


def write_task_scores(path: Path, scores: Sequence[ItemScore]) -> None:
    """Write the scores, one item per line, atomically."""
    lines = (json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in scores)
    write_whole(path, "".join(lines))


def read_task_scores(path: Path) -> list[ItemScore]:
    """Read the scores of a file.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        # A text can contain other line separators of Unicode, which JSON does not escape.
        with path.open(encoding="utf-8", newline="\n") as file:
            return [ItemScore(**json.loads(line)) for line in file]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the scores of a task, got something else ({error}): remove the "
            "file, or evaluate again"
        ) from error


def read_all_task_scores(folder: str | Path) -> dict[int, list[ItemScore]]:
    """Read the scores during `fit` from a run folder, by step."""
    return {step: read_task_scores(path) for step, path in sorted(_files(folder).items())}


def remove_task_scores_after(folder: str | Path, step: int) -> None:
    """Delete the scores of a fit after a step, which a run resumed there repeats."""
    for done, path in _files(folder).items():
        if done > step:
            path.unlink()


def mean_score(scores: Sequence[ItemScore]) -> float:
    """Return the mean score of the items, at least one."""
    return sum(each.score for each in scores) / len(scores)


def _files(folder: str | Path) -> dict[int, Path]:
    files = (Path(folder) / FOLDER).glob(f"{TASK}-step=*.jsonl")
    by_step = {path.stem.rpartition("=")[2]: path for path in files}
    return {int(step): path for step, path in by_step.items() if step.isdecimal()}
