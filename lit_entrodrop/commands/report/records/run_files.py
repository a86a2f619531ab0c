"""Optional files of a run folder: one that is missing, cut or damaged is left out of the page."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import yaml

from lit_entrodrop.cli.yaml_text import load_yaml
from lit_entrodrop.runs.evaluations import read_run_info
from lit_entrodrop.runs.layout import CONFIG
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.callbacks.samples import FILE_NAME as SAMPLES
from lit_entrodrop.training.provenance import settings_of

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
    """The optional files of a run folder, and sentences on those that could not be read."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def read(self, name: str, reader: Callable[[Path], T], default: T) -> T:
        """Read a file of the folder with a function of the folder."""
        if not (self.folder / name).exists():
            return default
        try:
            return reader(self.folder)
        except DAMAGE as error:
            self.notes.append(f"`{name}` could not be read and is left out: {self.message(error)}.")
            return default

    def samples(self, folder: Path) -> list[dict[str, Any]]:
        """Read the generated texts, without damaged lines."""
        # A text can contain Unicode line separators, which JSON does not escape.
        with (folder / SAMPLES).open(encoding="utf-8", errors="replace") as file:
            lines = [_sample(line) for line in file if line.strip()]
        found = [line for line in lines if line is not None]
        if lost := len(lines) - len(found):
            self.notes.append(f"{lost} of {len(lines)} lines of `{SAMPLES}` could not be read.")
        return found

    def message(self, error: BaseException) -> str:
        """Return the message of an error, without the folders above the run."""
        return one_line(error).replace(str(self.folder), self.folder.name).rstrip(".")


def read_info(folder: Path) -> dict[str, Any]:
    """Read ``run.json``, without damaged sections."""
    found = read_run_info(folder)
    return {n: value for n, value in found.items() if n not in SECTIONS or isinstance(value, dict)}


def read_config(folder: Path) -> str:
    """Read all settings as YAML, without folders of the machine."""
    found = load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"expected the settings of `fit`, got {one_line(found)[:80]}")
    text: str = yaml.safe_dump(settings_of(found), sort_keys=False, width=88, allow_unicode=True)
    return text


def _sample(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
