"""What runs of the program leave behind, compared."""

from pathlib import Path

from numpy.testing import assert_allclose
from safetensors.torch import load_file
from torch import Tensor

from lit_entrodrop.export import export
from lit_entrodrop.metrics_file import read_metrics


def exported(run: Path) -> dict[str, Tensor]:
    """Return the weights that a run ended with, as `export` writes them."""
    folder = run / "exported"
    if not folder.exists():
        export(str(run / "checkpoints" / "last.ckpt"), str(folder))
    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return weights


def assert_same_curves(actual: Path, expected: Path, tolerance: float) -> None:
    """Compare the losses of two runs, step by step."""
    ours, theirs = read_metrics(actual), read_metrics(expected)
    for name in ("train/loss", "val/loss"):
        values = theirs[name].dropna()
        assert len(values) >= 3
        assert_allclose(ours[name].dropna(), values, rtol=tolerance)
