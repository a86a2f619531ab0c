"""What a comparison keeps in the folder of a run: its config, its mark, its logs and its lock."""

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from lit_entrodrop.commands.compare.planning import Run, first_difference
from lit_entrodrop.runs.writing import write_whole

FOLDER = "compare"
SCHEMA = 1


@dataclass(frozen=True)
class Mark:
    """What is known of a run.

    Args:
        digest: hash of the config that it was started with.
        is_finished: whether it has ended by itself.
    """

    digest: str
    is_finished: bool


def read_mark(run: Run) -> Mark | None:
    """Return the mark of a run, None if it was never started.

    Raises:
        ValueError: if it cannot be read.
    """
    path = _place(run, "mark.json")
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return Mark(str(content["config_hash"]), bool(content["finished"]))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{run.title}: expected what `compare` has kept of the run in {path}, got something "
            f"else ({type(error).__name__}): remove {run.folder} to train the run anew, or name "
            "another --output"
        ) from error


def write_mark(run: Run, is_finished: bool) -> None:
    """Mark a run as started or finished; a reader sees the one or the other, whole."""
    content = {"schema": SCHEMA, "config_hash": run.digest, "finished": is_finished}
    write_whole(_place(run, "mark.json"), json.dumps(content))


def claim(run: Run) -> None:
    """Keep the config of a run that is to start or go on, and mark it as started.

    Raises:
        ValueError: if the folder holds a run of another config, or one of no comparison.
    """
    check_claim(run)
    mark = read_mark(run)
    if mark is None or not config_file(run).exists():
        write_whole(config_file(run), yaml.safe_dump(run.config, sort_keys=False))
    if mark is None:
        write_mark(run, is_finished=False)


def check_claim(run: Run) -> None:
    """Refuse the folder of a run that is not this one.

    Raises:
        ValueError: naming what differs.
    """
    mark = read_mark(run)
    if mark is None and (run.folder / "metrics.csv").exists():
        raise ValueError(
            f"output: expected a folder for {run.title}, but {run.folder} holds a run of no "
            "comparison: name another with --output"
        )
    if mark is not None and mark.digest != run.digest:
        difference = _difference(run) or "the config differs"
        raise ValueError(
            f"{run.title}: expected the config that the run in {run.folder} was "
            f"{'finished' if mark.is_finished else 'started'} with, but {difference}: change it "
            "back, name another --output, or remove that folder"
        )


def config_file(run: Run) -> Path:
    """Return the file that holds the whole config of a run, for `fit`."""
    return _place(run, "fit.yaml")


def log_file(run: Run, name: str) -> Path:
    """Return the file that holds what a command has said of a run."""
    return _place(run, f"{name}.log")


def lock(path: Path) -> IO[str] | None:
    """Lock a file until it is closed by this process and all that inherit it.

    Args:
        path: of the file, which is made.

    Returns:
        The open file; None if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def lock_run(run: Run) -> IO[str] | None:
    """Lock the folder of a run, as :func:`lock` does."""
    return lock(_place(run, "lock"))


def to_json(content: Mapping[str, Any]) -> str:
    """Return JSON that any reader takes.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _difference(run: Run) -> str | None:
    try:
        return first_difference(run.config, yaml.safe_load(config_file(run).read_text()))
    except (OSError, yaml.YAMLError):
        return f"the config differs, and {config_file(run)} cannot be read"


def _place(run: Run, name: str) -> Path:
    return run.folder / FOLDER / name
