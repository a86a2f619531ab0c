"""Where a file or folder has logs."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lit_entrodrop.commands.diagnose.logs.csv_logs import METRICS, read_csv
from lit_entrodrop.commands.diagnose.logs.json_logs import LINES, STATE, read_lines, read_state
from lit_entrodrop.commands.diagnose.logs.log import TrainingLog
from lit_entrodrop.commands.diagnose.logs.tensorboard_logs import EVENTS, read_events

Reader = Callable[[Path, str], TrainingLog]
# Of several logs in a folder, the first knows most.
IN_FOLDERS: dict[str, Reader] = {STATE: read_state, METRICS: read_csv, LINES: read_lines}
BY_SUFFIX: dict[str, Reader] = {".json": read_state, ".jsonl": read_lines, ".csv": read_csv}
CHECKPOINT = "checkpoint-"


def find_logs(path: Path) -> list[TrainingLog]:
    """Read the log in a file, or all logs in a folder and its subfolders.

    Of several checkpoints of Transformers in a folder, only the last is read.

    Raises:
        ValueError: If there is none, or a log cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a log or a folder with logs, found neither: check it")
    found = list(_in_folder(path)) if path.is_dir() else [_in_file(path)]
    if not found:
        raise ValueError(
            f"{path}: expected a folder with {STATE}, {METRICS}, {LINES} or TensorBoard's event "
            "files, found none of them: name the folder in which the trainer wrote"
        )
    return found


def _in_file(path: Path) -> TrainingLog:
    if path.match(EVENTS):
        return read_events(path, str(path))
    if path.suffix not in BY_SUFFIX:
        raise ValueError(
            f"{path}: expected {STATE}, {LINES}, a CSV file or TensorBoard's event file, got "
            "another kind of file: rename it if it is one of these"
        )
    return BY_SUFFIX[path.suffix](path, str(path))


def _in_folder(folder: Path) -> Iterator[TrainingLog]:
    for name, read in IN_FOLDERS.items():
        if (folder / name).is_file():
            yield read(folder / name, str(folder / name))
            return
    states = {
        int(number): state
        for state in folder.glob(f"{CHECKPOINT}*/{STATE}")
        if (number := state.parent.name.removeprefix(CHECKPOINT)).isdecimal()
    }
    if states:
        last = states[max(states)]
        yield read_state(last, str(last))
        return
    if any(folder.glob(EVENTS)):
        yield read_events(folder, str(folder))
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            yield from _in_folder(each)
