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
        lines = path.read_text(encoding="utf-8").splitlines()
        return [ItemScore(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the scores of a task, got something else ({error}): remove the "
            "file, or evaluate again"
        ) from error


def remove_task_scores_after(folder: str | Path, step: int) -> None:
    """Delete the scores of a fit after a step, which a run resumed there repeats."""
    for path in (Path(folder) / FOLDER).glob(f"{TASK}-step=*.jsonl"):
        done = path.stem.rpartition("=")[2]
        if done.isdecimal() and int(done) > step:
            path.unlink()
