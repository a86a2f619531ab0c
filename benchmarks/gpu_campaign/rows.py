"""The file of a campaign's results: one JSON object in each line."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Longer values are written, but not printed.
SHOWN = 24


class RowFile:
    """Appends rows; each is on the disk before the next case runs.

    Args:
        path: File to append to.
        provenance: Entries of every row, such as device, versions and commit.

    Raises:
        ValueError: If the file has rows of a rehearsal and these are not, or the reverse.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.provenance = dict(provenance)
        own = provenance.get("rehearsal")
        if path.exists() and any(row.get("rehearsal") != own for row in read_rows(path)):
            kind = "rehearsals" if own else "campaigns on a GPU"
            raise ValueError(
                f"out: expected a file with rows of {kind} alone, got others in {path}: choose "
                "another file"
            )

    def append(self, row: Mapping[str, Any]) -> None:
        """Write and print a row."""
        line = json.dumps(finite({**row, **self.provenance}), default=str)
        with self.path.open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        print(shown(row), flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file.

    Raises:
        ValueError: If a line is no row, such as the last one of a machine that was cut off.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"rows: expected a JSON object in each line of {path}, got something else ({error}): "
            "remove that line"
        ) from None


def finite(value: Any) -> Any:
    """Return nested values with null for NaN and infinities, which JSON lacks.

    >>> finite({"ms": [1.5, float("nan")]})
    {'ms': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(row: Mapping[str, Any]) -> str:
    """Return a row as a line of text.

    >>> shown({"step": "b head", "case": "V=8", "status": "ok", "ms": 1.23456, "losses": [1, 2]})
    'b head | V=8 | ok | ms 1.235'
    """
    values = {name: f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in row.items()}
    first = [values.pop(name) for name in ("step", "case", "status") if name in values]
    flat = {n: v for n, v in values.items() if not isinstance(row[n], list | dict | None)}
    others = [f"{n} {v}" for n, v in flat.items() if len(v) <= SHOWN or n in ("reason", "error")]
    return " | ".join([*first, *others])
