"""Files that a comparison keeps in the folder of a run: config, state, logs and lock."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from lit_entrodrop.commands.compare.planning import PlannedRun, first_difference
from lit_entrodrop.runs.writing import write_whole

FOLDER = "compare"
SCHEMA = 1


@dataclass(frozen=True)
class RunState:
    """State of a run.

    Args:
        digest: Hash of the config that the run was started with.
        is_finished: Whether training has come to its end.
    """

    digest: str
    is_finished: bool


def read_state(run: PlannedRun) -> RunState | None:
    """Return the state of a run, None if it was never started.

    Raises:
        ValueError: If the file cannot be read.
    """
    path = _path(run, "mark.json")
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return RunState(str(content["config_hash"]), bool(content["finished"]))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{run.title}: expected the state of a run in {path}, got something else "
            f"({type(error).__name__}): remove {run.folder} to train the run again, or choose "
            "another --output"
        ) from error


def write_state(run: PlannedRun, is_finished: bool) -> None:
    """Record that a run is started or finished, in one atomic write."""
    content = {"schema": SCHEMA, "config_hash": run.digest, "finished": is_finished}
    write_whole(_path(run, "mark.json"), json.dumps(content))


def claim(run: PlannedRun) -> None:
    """Write the config of a run before it is started or resumed, and record that it is started.

    Raises:
        ValueError: If the folder holds a run of another config or outside a comparison.
    """
    check_claim(run)
    state = read_state(run)
    if state is None or not config_file(run).exists():
        write_whole(config_file(run), yaml.safe_dump(run.config, sort_keys=False))
    if state is None:
        write_state(run, is_finished=False)


def check_claim(run: PlannedRun) -> None:
    """Check that the folder of a run is free or holds this run.

    Raises:
        ValueError: If it holds another run, with the setting that differs.
    """
    state = read_state(run)
    if state is None and (run.folder / "metrics.csv").exists():
        raise ValueError(
            f"output: expected a free folder for {run.title}, but {run.folder} holds a run that "
            "belongs to no comparison: choose another --output"
        )
    if state is not None and state.digest != run.digest:
        difference = _difference(run) or "the config differs"
        raise ValueError(
            f"{run.title}: expected the config with which the run in {run.folder} was "
            f"{'finished' if state.is_finished else 'started'}, but {difference}: change it "
            "back, choose another --output, or remove that folder"
        )


def config_file(run: PlannedRun) -> Path:
    """Return the path to the complete config of a run, for `fit`."""
    return _path(run, "fit.yaml")


def log_file(run: PlannedRun, name: str) -> Path:
    """Return the path to the output of a command."""
    return _path(run, f"{name}.log")


def lock_file(run: PlannedRun) -> Path:
    """Return the path to the file that a process locks while it works on a run."""
    return _path(run, "lock")


def _difference(run: PlannedRun) -> str | None:
    try:
        return first_difference(run.config, yaml.safe_load(config_file(run).read_text()))
    except (OSError, yaml.YAMLError):
        return f"the config differs, and {config_file(run)} cannot be read"


def _path(run: PlannedRun, name: str) -> Path:
    return run.folder / FOLDER / name
