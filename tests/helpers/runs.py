"""Runs of the program, on one rank or several, and what they leave."""

from pathlib import Path

from numpy.testing import assert_allclose
from safetensors.torch import load_file
from torch import Tensor

from lit_entrodrop.commands.export import export
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runs.evaluations import Evaluation
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.processes import describe_ranks, run_cli_ranks
from tests.helpers.tiny import Tiny


def fit(tiny: Tiny, name: str, *arguments: str, world_size: int = 1, status: int = 0) -> Path:
    """Run `fit` on one rank or several, which end with a status, and return its folder."""
    arguments = (*arguments, "--trainer.log_every_n_steps=1")
    if world_size == 1:
        return tiny.run("fit", *arguments, root=name)
    return tiny.run_ranks("fit", *arguments, root=name, world_size=world_size, status=status)


def validated(tiny: Tiny, run: Path, *arguments: str, world_size: int = 1) -> float:
    """Validate the last checkpoint of a run, in any number of ranks, and return the loss."""
    words = ["validate", *tiny.config(), *arguments, f"--trainer.devices={world_size}"]
    words += [f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]
    place = tiny.folder / f"validated-{run.name}-{world_size}"
    words += [f"--trainer.default_root_dir={place}"]
    ranks = run_cli_ranks(*words, folder=tiny.folder, world_size=world_size)
    assert ranks[0].returncode == 0, describe_ranks(ranks)
    return validation_loss(place)


def validation_loss(folder: Path) -> float:
    """Return the loss that `validate` has left in a folder."""
    [written] = folder.rglob("validation-step=*.npz")
    evaluation = Evaluation.load(written)
    # The checkpoint knows the bucket of every token.
    assert evaluation.tokens[:, 1:].sum() == evaluation.tokens[:, 0].sum() > 0
    return float(evaluation.loss[0])


def exported(run: Path, weights: Weights = "raw") -> dict[str, Tensor]:
    """Return the weights that a run ended with, or their average, as `export` writes them."""
    folder = run / ("exported" if weights == "raw" else f"exported-{weights}")
    if not folder.exists():
        export(str(run / "checkpoints" / "last.ckpt"), str(folder), weights=weights)
    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return weights


def assert_same_curves(actual: Path, expected: Path, tolerance: float) -> None:
    """Compare the losses of two runs, step by step."""
    ours, theirs = read_metrics(actual), read_metrics(expected)
    averaged = ["val_average/loss"] * ("val_average/loss" in ours)
    for name in ("train/loss", "val/loss", *averaged):
        values = theirs[name].dropna()
        assert len(values) >= 3
        assert_allclose(ours[name].dropna(), values, rtol=tolerance)
