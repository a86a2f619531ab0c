from typing import Any

import pytest

from lit_entrodrop.runtime.steps import (
    Position,
    batches_per_epoch,
    epochs_begun,
    steps_per_epoch,
    total_steps,
)
from tests.helpers.tiny import Tiny


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 3},
        {"max_epochs": 3, "accumulate_grad_batches": 3},
        {"max_epochs": 3, "max_steps": 5},
        {"max_epochs": 2, "max_steps": 10_000},
        {"max_epochs": -1, "max_steps": 7},
        {"max_epochs": None, "max_steps": 7},
        {"max_epochs": 2, "limit_train_batches": 3},
        {"max_epochs": 2, "limit_train_batches": 0.5, "accumulate_grad_batches": 2},
        {"max_epochs": 1, "limit_train_batches": 10_000},
    ],
)
def test_total_steps_are_those_that_lightning_takes(tiny: Tiny, settings: dict[str, Any]) -> None:
    module = tiny.module()
    trainer = tiny.trainer(limit_val_batches=0, **settings)
    trainer.fit(module, datamodule=tiny.data(batch_size=8))
    assert module.total_steps == trainer.global_step
    assert module.total_steps > 0


@pytest.mark.parametrize("max_epochs", [-1, None, 0])
def test_endless_or_empty_run_is_refused(max_epochs: int | None) -> None:
    with pytest.raises(ValueError, match="expected max_epochs >= 1 or max_steps >= 1"):
        total_steps(10, max_epochs, -1)


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(-1, 200, 200), (4, -1, 100 + 2 * 15), (4, 120, 120), (1, -1, 100)],
)
def test_steps_of_a_resumed_run_count_those_done(epochs: int, steps: int, expected: int) -> None:
    """After 100 steps in two epochs, of other settings, where an epoch now takes 15."""
    assert total_steps(15, epochs, steps, Position(100, 2, 0)) == expected


@pytest.mark.parametrize(
    ("per_epoch", "max_epochs", "max_steps", "expected"),
    [(5, 3, -1, 3), (5, -1, 6, 2), (5, 5, 6, 2), (3, 5, 7, 3), (5, -1, -1, 0)],
)
def test_epochs_of_a_run(per_epoch: int, max_epochs: int, max_steps: int, expected: int) -> None:
    assert epochs_begun(per_epoch, max_epochs, max_steps) == expected


def test_devices_share_an_epoch() -> None:
    assert steps_per_epoch(batches_per_epoch(41, ranks=4, batch_size=4), accumulate=2) == 2
