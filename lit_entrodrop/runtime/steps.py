"""Numbers of batches, epochs and optimizer steps of a run."""

import math
from typing import NamedTuple


class Position(NamedTuple):
    """Completed optimizer steps and epochs of a run, and batches of the current epoch."""

    steps: int = 0
    epochs: int = 0
    batches: int = 0


def batches_per_epoch(blocks: int, ranks: int, batch_size: int) -> int:
    """Return the number of batches that each data-parallel rank reads in one epoch.

    >>> batches_per_epoch(blocks=100, ranks=2, batch_size=8)
    7
    """
    return math.ceil(math.ceil(blocks / ranks) / batch_size)


def limited_batches(batches: int, limit: float | None) -> int:
    """Return the number of batches that a ``limit_*_batches`` of the trainer leaves.

    Args:
        batches: Number of batches.
        limit: A share if float, a number if int; None for no limit.

    >>> limited_batches(7, 0.5), limited_batches(7, 9), limited_batches(7, None)
    (3, 7, 7)
    """
    if isinstance(limit, float):
        return int(batches * limit)
    return batches if limit is None else min(batches, limit)


def steps_per_epoch(batches: int, accumulate: int, limit: float | None = None) -> int:
    """Return the number of optimizer steps in one epoch.

    Args:
        batches: Number of batches of one rank in one epoch.
        accumulate: Number of batches in a step, ``trainer.accumulate_grad_batches``.
        limit: Value of ``trainer.limit_train_batches``, see :func:`limited_batches`.

    >>> steps_per_epoch(100, 4), steps_per_epoch(100, 4, 0.5), steps_per_epoch(100, 4, 9)
    (25, 13, 3)
    """
    return math.ceil(limited_batches(batches, limit) / accumulate)


def total_steps(
    per_epoch: int,
    max_epochs: int | None,
    max_steps: int | None,
    start: Position = Position(),  # noqa: B008
    accumulate: int = 1,
) -> int:
    """Return the number of optimizer steps of a run, over which all schedules extend.

    Reading Lightning's own estimate drops the restored position of the data loader
    (Lightning issue 20550).

    Args:
        per_epoch: Number of optimizer steps in one epoch.
        max_epochs: Value of ``trainer.max_epochs``; None or -1 for no bound.
        max_steps: Value of ``trainer.max_steps``; None or -1 for no bound.
        start: Position at which the run was resumed; earlier steps may have had other sizes.
        accumulate: Number of batches in a step, ``trainer.accumulate_grad_batches``.

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
        # Steps that training so far would have taken with the current settings.
        otherwise = start.epochs * per_epoch + start.batches // accumulate
        bounds.append(max(max_epochs * per_epoch + start.steps - otherwise, start.steps, 1))
    return min(bounds)


def epochs_begun(per_epoch: int, max_epochs: int | None, max_steps: int | None) -> int:
    """Return the number of epochs that a run begins; 0 if both bounds are None or -1.

    >>> epochs_begun(10, max_epochs=5, max_steps=21), epochs_begun(10, None, None)
    (3, 0)
    """
    bounds = [math.ceil(max_steps / per_epoch)] if max_steps and max_steps > 0 else []
    if max_epochs is not None and max_epochs != -1:
        bounds.append(max_epochs)
    return min(bounds, default=0)
