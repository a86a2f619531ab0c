"""Files that a comparison keeps in the folder of a run: config, state, logs and lock."""

import json
from argparse import ArgumentError
from pathlib import Path
from typing import NamedTuple

import yaml

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.yaml_text import load_yaml
from lit_entrodrop.commands.compare.planning.config_differences import digest, first_difference
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.runs.layout import holds_run
from lit_entrodrop.runs.writing import write_whole

SCHEMA = 1


class RunState(NamedTuple):
    """Hash of the config that a run was started with, and whether its training is finished."""

    digest: str
    is_finished: bool


def read_state(run: PlannedRun) -> RunState | None:
    """Return the state of a run, None if it was never started.

    Raises:
        ValueError: If the file cannot be read.
    """
    path = state_path(run, "mark.json")
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
    content = {"schema": SCHEMA, "config_hash": digest(run.config), "finished": is_finished}
    write_whole(state_path(run, "mark.json"), json.dumps(content))


def claim(run: PlannedRun) -> None:
    """Write the config of a run before it is started or resumed, and record that it is started.

    Raises:
        ValueError: If the folder contains a run of another config, or of no comparison.
    """
    check_claim(run)
    state = read_state(run)
    if state is None or not config_file(run).exists():
        write_whole(config_file(run), yaml.safe_dump(run.config, sort_keys=False))
    if state is None:
        write_state(run, is_finished=False)


def check_claim(run: PlannedRun) -> None:
    """Check that the folder of a run is free or contains this run.

    Raises:
        ValueError: If it contains another run; the message names the setting that differs.
    """
    state = read_state(run)
    if state is None and holds_run(run.folder):
        raise ValueError(
            f"output: expected a free folder for {run.title}, but {run.folder} contains a run that "
            "belongs to no comparison: choose another --output"
        )
    if state is None or state.digest == digest(run.config):
        return
    if difference := _difference(run):
        raise ValueError(
            f"{run.title}: expected the config with which the run in {run.folder} was "
            f"{'finished' if state.is_finished else 'started'}, but {difference}: change it "
            "back, choose another --output, or remove that folder"
        )


def _difference(run: PlannedRun) -> str | None:
    """Describe how a run's config differs from the one it was started with.

    Settings that a later version added have their defaults in the earlier config.
    """
    try:
        earlier = load_yaml(config_file(run).read_text())
        completed = resolved_config([earlier])
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return f"the config differs, and {config_file(run)} cannot be read"
    except ArgumentError:
        return first_difference(run.config, earlier) or "the config differs"
    return first_difference(run.config, completed)


def state_path(run: PlannedRun, name: str) -> Path:
    """Return the path to a file that the comparison keeps for a run."""
    return run.folder / "compare" / name


def config_file(run: PlannedRun) -> Path:
    """Return the path to the complete config of a run, for `fit`."""
    return state_path(run, "fit.yaml")
