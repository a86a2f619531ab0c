"""Runs in ``comparison.json``, by which another comparison can take them without training."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.compare.measuring.measures import SCORE, RunResult
from lit_entrodrop.commands.compare.planning.config_differences import digest
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.report.rendering.formatting import LOSS

# Of comparison.json. Version 1 has no `runs`.
SCHEMA = 2
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class ImportedRun:
    """A run of an earlier comparison: its results by split, and the name of the file."""

    results: Mapping[str, RunResult]
    file: str
    contradicting: str | None = None  # files with different losses of this run


def run_entry(
    run: PlannedRun, results: Mapping[str, RunResult], file: str | None
) -> dict[str, Any]:
    """Return the entry of a run in ``comparison.json``.

    Args:
        run: The run, with the settings that its digest covers.
        results: Metrics by split, ``validation`` and perhaps ``test``.
        file: Name of the file that the run was imported from; None if it was trained here.
    """
    validation = results["validation"]
    return {
        "arm": run.arm,
        "strength": run.strength,
        "share": run.share,
        "seed": run.seed,
        "digest": digest(run.config),
        "imported_from": file,
        "origin": validation.origin,
        "fingerprints": validation.fingerprints,
        "train_tokens": validation.train_tokens,
        "total_steps": validation.total_steps,
        "selected_by": validation.selected_by,
        "averaged": validation.averaged,
        **{split: results[split].values if split in results else None for split in SPLITS},
    }


def read_imported(files: Iterable[Path]) -> dict[str, ImportedRun]:
    """Read the runs of ``comparison.json`` files, by the digest of their settings.

    If a run is in several files, the first one with results on the test split counts.

    Raises:
        ValueError: If a file has no runs that can be imported.
    """
    found: dict[str, ImportedRun] = {}
    for path in files:
        for key, run in _read(path).items():
            known = found.setdefault(key, run)
            if "test" in run.results and "test" not in known.results:
                found[key] = run
            if known.results["validation"].values[LOSS] != run.results["validation"].values[LOSS]:
                found[key] = replace(found[key], contradicting=f"{known.file} and {run.file}")
    return found


def _read(path: Path) -> dict[str, ImportedRun]:
    if not path.is_file():
        raise ValueError(f"import: expected a file, found no {path}: correct the path")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"import: expected a whole comparison.json, got {path}, which is not JSON ({error}): "
            "copy the file again"
        ) from None
    if not isinstance(content, dict) or not {"schema", "arms", "contrasts"} <= content.keys():
        raise ValueError(
            f"import: expected the results of `compare`, got {path}, which has other content: "
            "give comparison.json of the output folder"
        )
    if content["schema"] != SCHEMA:
        raise ValueError(
            f"import: expected schema {SCHEMA}, got {content['schema']} in {path}: start that "
            f"comparison again with a version of lit-entrodrop that writes schema {SCHEMA}, which "
            "trains nothing"
        )
    try:
        return {str(entry["digest"]): _run(entry, path.name) for entry in content["runs"]}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"import: expected the runs of a comparison in {path}, got something else "
            f"({type(error).__name__}: {error}): copy the file again"
        ) from None


def _run(entry: Mapping[str, Any], file: str) -> ImportedRun:
    results = {
        split: RunResult(
            None,
            {str(name): float(value) for name, value in entry[split].items()},
            {},
            int(entry["total_steps"]),
            selected_by=str(entry["selected_by"]),
            averaged=bool(entry["averaged"]),
            fingerprints=dict(entry["fingerprints"]),
            origin=dict(entry["origin"]),
            train_tokens=entry.get("train_tokens"),
        )
        for split in SPLITS
        if split == "validation" or entry[split] is not None
    }
    for result in results.values():
        # The selection and the differences need them.
        _ = result.values[SCORE], result.values[LOSS]
        if not all(map(math.isfinite, result.values.values())):
            raise ValueError("a value that is not finite")
    return ImportedRun(results, file)
