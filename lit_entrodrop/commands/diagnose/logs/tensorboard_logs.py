"""Logs of TensorBoard."""

from pathlib import Path

from lit_entrodrop.commands.diagnose.logs.log import TENSORBOARD, TrainingLog, number

EVENTS = "*tfevents*"


def read_events(path: Path, name: str) -> TrainingLog:
    """Read the scalars of an event file, or of all event files in a folder.

    Raises:
        ValueError: If there are no scalars, or TensorBoard is not installed.
    """
    import pandas as pd

    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise ValueError(
            f"{path}: expected the package tensorboard, which reads event files, found none: "
            "pip install 'lit-entrodrop[tensorboard]'"
        ) from error
    # 0 keeps all scalars; steps that were logged twice are looked at later.
    events = EventAccumulator(str(path), {"scalars": 0}, purge_orphaned_data=False).Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        raise ValueError(
            f"{path}: expected event files with scalars, found none: name the folder that "
            "TensorBoard shows as a run"
        )
    entries = [
        {"step": event.step, tag: number(event.value)}
        for tag in tags
        for event in events.Scalars(tag)
    ]
    folder = path if path.is_dir() else path.parent
    return TrainingLog(name, folder, TENSORBOARD, pd.DataFrame(entries))
