"""Optional files of a run folder: one that is missing, cut or damaged is left out of the page."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import pandas as pd
import yaml

from lit_entrodrop.cli.messages import one_line
from lit_entrodrop.runs.evaluations import FOLDER as EVALUATIONS
from lit_entrodrop.runs.evaluations import RUN_INFO, Evaluation, read_evaluations, read_run_info
from lit_entrodrop.runs.metrics_file import whole_rows
from lit_entrodrop.training.callbacks.throughput import FILE_NAME as THROUGHPUT
from lit_entrodrop.training.callbacks.throughput import read_throughput
from lit_entrodrop.training.provenance import settings_of

SAMPLES, CONFIG = "samples.jsonl", "config.yaml"
SECTIONS = ("buckets", "passages", "provenance", "fingerprints")
# Errors raised by files with unexpected content.
DAMAGE = (
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    BadZipFile,
    yaml.YAMLError,
)
T = TypeVar("T")


@dataclass
class RunFiles:
    """The optional files of a run folder.

    Args:
        folder: Run folder.
        notes: Sentences on files that could not be read.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        """Read ``run.json``; empty if it is missing."""
        return self._read(RUN_INFO, lambda _: _info(self.folder), {})

    def evaluations(self) -> list[Evaluation]:
        """Read all evaluations."""
        return self._read(EVALUATIONS, lambda _: read_evaluations(self.folder), [])

    def samples(self) -> list[dict[str, Any]]:
        """Read the generated texts, without damaged lines."""
        return self._read(SAMPLES, self._samples, [])

    def speed(self) -> pd.DataFrame:
        """Read the throughput measured during training."""
        read = self._read(THROUGHPUT, lambda _: read_throughput(self.folder), pd.DataFrame())
        return whole_rows(read)

    def config(self) -> str:
        """Read all settings as YAML, without folders of the machine."""
        return self._read(CONFIG, _config, "")

    def _read(self, name: str, read: Callable[[Path], T], default: T) -> T:
        path = self.folder / name
        if not path.exists():
            return default
        try:
            return read(path)
        except DAMAGE as error:
            self.notes.append(f"`{name}` could not be read and is left out: {self.message(error)}.")
            return default

    def _samples(self, path: Path) -> list[dict[str, Any]]:
        # A text can contain Unicode line separators, which JSON does not escape.
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [_sample(line) for line in file if line.strip()]
        found = [line for line in lines if line is not None]
        if lost := len(lines) - len(found):
            self.notes.append(f"{lost} of {len(lines)} lines of `{SAMPLES}` could not be read.")
        return found

    def message(self, error: BaseException) -> str:
        """Return the message of an error, without the folders above the run."""
        return one_line(error).replace(str(self.folder), self.folder.name).rstrip(".")


def _info(folder: Path) -> dict[str, Any]:
    found = read_run_info(folder)
    return {n: value for n, value in found.items() if n not in SECTIONS or isinstance(value, dict)}


def _sample(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _config(path: Path) -> str:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"expected the settings of `fit`, got {one_line(found)[:80]}")
    text: str = yaml.safe_dump(settings_of(found), sort_keys=False, width=88, allow_unicode=True)
    return text
