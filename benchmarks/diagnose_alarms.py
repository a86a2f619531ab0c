"""False alarms and power of `diagnose`, on simulated curves.

A validation loss falls exponentially to 2 nats, over ten epochs, and scatters around that. Where it
overfits, it rises in a straight line over the last six epochs. A training loss falls and scatters;
it has stair steps, or the same order of the text in each epoch, or neither. Each row is the share
of the simulated curves for which the verdict is "overfits", or stair steps are shown.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from lit_entrodrop.evaluation.diagnosis.epoch_drops import epoch_drops
from lit_entrodrop.evaluation.diagnosis.loss_curve import correlated_noise, judge_curve

EVALUATIONS = (5, 10, 20, 100)
SCATTERS = (0.006, 0.02)  # nats, of a loss of 2
CORRELATIONS = (0.0, 0.25, 0.5)  # of the scatter of neighbors
RISES = (0.0, 0.05, 0.1, 0.3)  # nats over the last six epochs
EPOCHS = (2, 3, 8)
ROWS = (8, 40)  # training losses in an epoch
BATCH_SCATTERS = (0.05, 0.3)  # nats
STAIRS = (0.0, 0.1, 0.3)  # nats
ORDERED = 0.3  # nats that the loss rises within each epoch, whose batches are the same


def diagnose_alarms(curves: int = 1000, seed: int = 0, out: str = harness.RESULTS) -> Path:
    """Simulate curves with and without overfitting and stair steps.

    Args:
        curves: Number of curves for each row.
        seed: Seed of the scatter.
        out: Folder of the results.
    """
    settings = {**locals()}
    rows = [*overfitting_rows(curves, seed), *stair_rows(curves, seed)]
    return harness.save("diagnose_alarms", settings, rows, out)


def overfitting_rows(curves: int, seed: int) -> list[dict[str, Any]]:
    """Return the share of validation losses that are found to overfit, by kind of curve."""
    random = np.random.default_rng(seed)
    rows = []
    shapes = [("falls", rise) for rise in RISES] + [("flat", 0.0)]
    for count, scatter, correlation, (shape, rise) in product(
        EVALUATIONS, SCATTERS, CORRELATIONS, shapes
    ):
        epochs = np.linspace(10 / count, 10, count)
        smooth = 2 + rise * np.maximum(epochs - 4, 0) / 6
        if shape == "falls":
            smooth = smooth + 1.5 * np.exp(-epochs)
        losses = smooth + scatter * correlated_noise(random, (curves, count), correlation)
        found = [judge_curve(each).kind == "overfits" for each in losses]
        rows.append(
            {
                "finding": "overfits",
                "curve": f"{shape}, then rises by {rise}" if rise else shape,
                "true": rise > 0,
                "values": count,
                "scatter": scatter,
                "correlation": correlation,
                "found": float(np.mean(found)),
            }
        )
    return rows


def stair_rows(curves: int, seed: int) -> list[dict[str, Any]]:
    """Return the share of training losses that are found to have stair steps, by kind of curve."""
    random = np.random.default_rng(seed)
    rows = []
    kinds = [("stairs", height) for height in STAIRS] + [("same order", ORDERED)]
    for epochs, count, scatter, (kind, height) in product(EPOCHS, ROWS, BATCH_SCATTERS, kinds):
        progress = np.arange(epochs * count) / count
        smooth = 2 + 1.5 * np.exp(-2 * progress)
        noise = random.normal(size=(curves, len(progress)))
        if kind == "same order":
            smooth += height * (progress % 1)
            noise = 0.2 * noise + np.tile(random.normal(size=(curves, count)), epochs)
        else:
            smooth -= height * progress.astype(int)
        losses = smooth + scatter * noise
        measured = [epoch_drops(progress.astype(int), each) for each in losses]
        rows.append(
            {
                "finding": "stair steps",
                "curve": f"{kind}, {height}" if height else "falls",
                "true": kind == "stairs" and height > 0,
                "epochs": epochs,
                "values": count,
                "scatter": scatter,
                "found": float(np.mean([each is not None and each.shown for each in measured])),
            }
        )
    return rows


if __name__ == "__main__":
    harness.command_line(diagnose_alarms)
