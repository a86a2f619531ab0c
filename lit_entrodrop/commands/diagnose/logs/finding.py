"""Search for logs in files and folders."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lit_entrodrop.commands.diagnose.logs.csv_logs import METRICS, read_csv
from lit_entrodrop.commands.diagnose.logs.json_logs import LINES, STATE, read_lines, read_state
from lit_entrodrop.commands.diagnose.logs.log import TrainingLog
from lit_entrodrop.commands.diagnose.logs.tensorboard_logs import EVENTS, read_events

Reader = Callable[[Path, str], TrainingLog]
FoundLog = Callable[[], TrainingLog]  # reads the log
# Of several logs in a folder, the first knows most.
IN_FOLDERS: dict[str, Reader] = {STATE: read_state, METRICS: read_csv, LINES: read_lines}
BY_SUFFIX: dict[str, Reader] = {".json": read_state, ".jsonl": read_lines, ".csv": read_csv}
CHECKPOINT = "checkpoint-"


def find_logs(path: Path) -> list[FoundLog]:
    """Find the log in a file, or all logs in a folder and its subfolders.

    Of several checkpoints of Transformers in a folder, only the last is found.

    Returns:
        Functions that read a log each; they raise a ValueError or OSError if it cannot be read.

    Raises:
        ValueError: If there is no log.
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


def _in_file(path: Path) -> FoundLog:
    if path.match(EVENTS):
        return partial(read_events, path, str(path))
    if path.suffix not in BY_SUFFIX:
        raise ValueError(
            f"{path}: expected {STATE}, {LINES}, a CSV file or TensorBoard's event file, got "
            "another kind of file: rename it if it is one of these"
        )
    return partial(BY_SUFFIX[path.suffix], path, str(path))


def _in_folder(folder: Path) -> Iterator[FoundLog]:
    for name, read in IN_FOLDERS.items():
        if (folder / name).is_file():
            yield partial(read, folder / name, str(folder / name))
            return
    states = {
        int(number): state
        for state in folder.glob(f"{CHECKPOINT}*/{STATE}")
        if (number := state.parent.name.removeprefix(CHECKPOINT)).isdecimal()
    }
    if states:
        last = states[max(states)]
        yield partial(read_state, last, str(last))
        return
    if any(folder.glob(EVENTS)):
        yield partial(read_events, folder, str(folder))
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            try:
                yield from _in_folder(each)
            except PermissionError as error:
                yield partial(_raise, error)


def _raise(error: PermissionError) -> TrainingLog:
    raise error
