"""Number of batches, epochs and optimizer steps of a run."""

import math
from typing import NamedTuple


class Position(NamedTuple):
    """Optimizer steps and epochs that a run has done, and batches of the current epoch."""

    steps: int = 0
    epochs: int = 0
    batches: int = 0


def batches_per_epoch(blocks: int, ranks: int, batch_size: int) -> int:
    """Return the batches that each data-parallel rank reads in one epoch.

    >>> batches_per_epoch(blocks=100, ranks=2, batch_size=8)
    7
    """
    return math.ceil(math.ceil(blocks / ranks) / batch_size)


def steps_per_epoch(batches: int, accumulate: int, limit: float | None = None) -> int:
    """Return the optimizer steps of one epoch.

    Args:
        batches: Batches of one rank in one epoch.
        accumulate: Batches of a step, ``trainer.accumulate_grad_batches``.
        limit: ``trainer.limit_train_batches``: a share if float, a number of batches if int.

    >>> steps_per_epoch(100, 4), steps_per_epoch(100, 4, 0.5), steps_per_epoch(100, 4, 9)
    (25, 13, 3)
    """
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    return math.ceil(batches / accumulate)


def total_steps(
    per_epoch: int,
    max_epochs: int | None,
    max_steps: int | None,
    start: Position = Position(),  # noqa: B008
    accumulate: int = 1,
) -> int:
    """Return the optimizer steps of a run, over which curricula and learning rate are spread.

    Reading Lightning's own estimate drops the restored position of the data loader
    (Lightning issue 20550).

    Args:
        per_epoch: Optimizer steps of one epoch.
        max_epochs: ``trainer.max_epochs``; None or -1 for no bound.
        max_steps: ``trainer.max_steps``; None or -1 for no bound.
        start: Position at which the run was resumed; its steps may have been of another size.
        accumulate: Batches of a step, ``trainer.accumulate_grad_batches``.

    Raises:
        ValueError: If neither epochs nor steps are bounded.

    >>> total_steps(per_epoch=10, max_epochs=3, max_steps=-1)
    30
    """
    bounded = max_epochs not in (None, -1)
    bounds = [max_steps] if max_steps is not None and max_steps > 0 else []
    if max_epochs == 0 or not (bounded or bounds):
        raise ValueError(
            "trainer: expected max_epochs >= 1 or max_steps >= 1, so that curricula have an end, "
            f"got max_epochs={max_epochs}, max_steps={max_steps}: set one of them"
        )
    if max_epochs is not None and bounded:
        # Steps that the training so far would have taken with the settings of now.
        otherwise = start.epochs * per_epoch + start.batches // accumulate
        bounds.append(max(max_epochs * per_epoch + start.steps - otherwise, start.steps, 1))
    return min(bounds)


def epochs_begun(per_epoch: int, max_epochs: int | None, max_steps: int | None) -> int:
    """Return how many epochs a run begins; 0 if it has no end, for bounds of None or -1.

    >>> epochs_begun(10, max_epochs=5, max_steps=21), epochs_begun(10, None, None)
    (3, 0)
    """
    bounds = [math.ceil(max_steps / per_epoch)] if max_steps and max_steps > 0 else []
    if max_epochs is not None and max_epochs != -1:
        bounds.append(max_epochs)
    return min(bounds, default=0)
