"""Metrics of finished runs, from their folders or from earlier comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.compare.measuring.imported_runs import ImportedRun, run_entry
from lit_entrodrop.commands.compare.measuring.measures import RunResult, are_tested, measure
from lit_entrodrop.commands.compare.planning.config_differences import digest
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.planning.rungs import prepared_tokens
from lit_entrodrop.commands.compare.running.training import is_finished
from lit_entrodrop.evaluation.diagnosis.explanation import enumeration


@dataclass(frozen=True)
class FinishedRuns:
    """Results of runs that are finished in their folders, and of those that can be imported.

    A folder takes precedence, as it has more: curves, checkpoints and losses of documents.

    Args:
        known: Runs of earlier comparisons, by the digest of their settings.
    """

    known: Mapping[str, ImportedRun] = field(default_factory=dict)
    # By folder and split, as reading takes some time.
    _measured: dict[tuple[Path, str], RunResult] = field(default_factory=dict, repr=False)

    def imported(self, run: PlannedRun) -> ImportedRun | None:
        """Return the imported run with the same settings if there is none in the folder."""
        return None if is_finished(run) else self.known.get(digest(run.config))

    def local(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Return the runs that are not imported: finished ones, and those to train."""
        return [run for run in runs if self.imported(run) is None]

    def incomplete(self, runs: Sequence[PlannedRun], documents: bool) -> list[PlannedRun]:
        """Return the imported runs that lack what their comparison needs.

        Args:
            runs: Runs to compare.
            documents: Whether it needs losses of documents, which are never imported.
        """
        return [
            run
            for run in runs
            if (found := self.imported(run)) is not None
            and (documents or (run.config["data"].get("test") and "test" not in found.results))
        ]

    def measure(self, run: PlannedRun, split: str = "validation") -> RunResult:
        """Return the metrics of a run on a split."""
        if (found := self.imported(run)) is not None:
            return found.results[split]
        key = run.folder, split
        if key not in self._measured:
            self._measured[key] = measure(*key)
        return self._measured[key]

    def train_tokens(self, run: PlannedRun) -> int:
        """Return the number of tokens that a run was, or will be, trained on.

        Raises:
            ValueError: If it is unknown.
        """
        if self.imported(run) is None and not is_finished(run):
            return prepared_tokens(run.config)
        found = self.measure(run).train_tokens or run.config["data"]["max_train_tokens"]
        if found is None:
            raise ValueError(
                f"ladder: expected the number of training tokens in {run.folder}/run.json, found "
                "none, as an earlier version trained the run: remove that folder to train it again"
            )
        return int(found)

    def is_tested(self, run: PlannedRun) -> bool:
        """Return whether a run was evaluated on the test split."""
        found = self.imported(run)
        return are_tested(run.folder) if found is None else "test" in found.results

    def entry(self, run: PlannedRun) -> dict[str, Any]:
        """Return the entry of a run in ``comparison.json``."""
        found = self.imported(run)
        if found is not None:
            return run_entry(run, found.results, found.file)
        splits = ["validation"]
        if run.config["data"].get("test") and self.is_tested(run):
            splits.append("test")
        return run_entry(run, {split: self.measure(run, split) for split in splits}, None)

    def notes(self, runs: Sequence[PlannedRun]) -> list[str]:
        """State which runs are imported, and in which arms the report has no curves."""
        imported = {run.folder: found for run in runs if (found := self.imported(run)) is not None}
        if not imported:
            return []
        files = enumeration(sorted({found.file for found in imported.values()}))
        note = (
            f"{len(imported)} of {len(runs)} runs were not trained here but imported from {files}, "
            "with their times per step"
        )
        here = {run.arm for run in runs if run.folder not in imported}
        without = [arm for arm in dict.fromkeys(run.arm for run in runs) if arm not in here]
        lacking = f"; the report has no curves of {enumeration(without)}" if without else ""
        notes = [f"{note}{lacking}."]
        unlike = [found.contradicting for found in imported.values() if found.contradicting]
        if unlike:
            notes.append(
                f"{len(unlike)} imported runs have different losses in "
                f"{enumeration(sorted(set(unlike)))}: the first file with test losses counts."
            )
        return notes
