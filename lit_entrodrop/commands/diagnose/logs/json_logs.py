"""Logs in JSON, of Transformers and of LLaMA-Factory."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.diagnose.logs.log import (
    LLAMA_FACTORY,
    TRANSFORMERS,
    TrainingLog,
    number,
)

STATE, LINES = "trainer_state.json", "trainer_log.jsonl"
# The mean over the whole training, which is logged at its end.
SUMMARY = "train_loss"
RENAMED = {"current_steps": "step"}


def read_state(path: Path, name: str) -> TrainingLog:
    """Read ``trainer_state.json``, which is in every checkpoint of Transformers.

    Raises:
        ValueError: If the file is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"text that is not JSON ({error})") from error
    history = content.get("log_history") if isinstance(content, dict) else None
    if not isinstance(history, list):
        raise _unreadable(path, "JSON without a list `log_history`")
    rows = [row for row in history if isinstance(row, dict)]
    if not rows:
        raise _unreadable(path, "an empty `log_history`: the trainer has logged nothing yet")
    # It may be the only training loss where none is logged during training.
    if any("loss" in row for row in rows):
        rows = [{key: each for key, each in row.items() if key != SUMMARY} for row in rows]
    return TrainingLog(name, path.parent, TRANSFORMERS, _table(rows))


def read_lines(path: Path, name: str) -> TrainingLog:
    """Read ``trainer_log.jsonl`` of LLaMA-Factory, or any file with a JSON object on each line.

    Raises:
        ValueError: If the file has no such line.
    """
    # A line with other bytes may still be read.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    parsed = [_object(line) for line in lines]
    rows = [{RENAMED.get(key, key): each for key, each in row.items()} for row in parsed if row]
    if not rows:
        raise ValueError(
            f"{path}: expected a JSON object with losses on each line, found none: use the "
            f"{LINES} that LLaMA-Factory writes"
        )
    lost = len(lines) - len(rows)
    notes = [f"{lost} of {len(lines)} lines could not be read."] if lost else []
    return TrainingLog(name, path.parent, LLAMA_FACTORY, _table(rows), notes)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame([{key: number(each) for key, each in row.items()} for row in rows])


def _unreadable(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected the {STATE} of a checkpoint of Transformers, got {found}: use that of "
        "the last checkpoint"
    )
