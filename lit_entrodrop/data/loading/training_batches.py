"""Batches of the training blocks, resumable within an epoch."""

import re
from collections.abc import Callable
from typing import Any

from lit_entrodrop.data.loading.loaders import Batching, ResumableDataLoader
from lit_entrodrop.data.loading.mixture import Mixture
from lit_entrodrop.data.loading.repacking import Repack, Repacking
from lit_entrodrop.data.loading.sampling import OrderedSampler, RepackedSampler
from lit_entrodrop.data.orders.training_order import TrainingOrder


class TrainingBatches:
    """Loader of the training blocks, in the order of each epoch, with its state.

    Args:
        mixture: Blocks of the corpus in the first epoch, their order, and replay.
        count_epochs: Function that returns the number of epochs of the run; 0 if it has no end.
        batching: How blocks are divided into batches.
        repacking: Blocks of the corpus in each epoch; None if all epochs have the same.
        num_blocks: Number of blocks of the corpus that an epoch reads; by default those of the
            first epoch.
    """

    def __init__(
        self,
        mixture: Mixture,
        count_epochs: Callable[[], int],
        batching: Batching,
        repacking: Repacking | None = None,
        num_blocks: int | None = None,
    ) -> None:
        self.mixture, self.batching = mixture, batching
        self.repack: Repack = "epoch" if repacking else "never"
        count = num_blocks or len(mixture.train)
        count_blocks = repacking.count if repacking else None
        self.order = TrainingOrder(mixture.order, count, mixture.seed, count_epochs, count_blocks)
        readings, order = count + mixture.replay_readings, mixture.arrange(self.order, count)
        sampler = OrderedSampler(range(readings), batching.num_replicas, batching.rank, order)
        if repacking:
            sampler = RepackedSampler(sampler, repacking, count)
        rows = mixture.rows(count, is_repacked=repacking is not None)
        self.loader = ResumableDataLoader(rows, sampler=sampler, **batching.loader_options())

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the order for a checkpoint; call it on every rank."""
        position = self.loader.state_dict()
        return {
            **position,
            "is_within_epoch": position["batches"] < len(self.loader),
            "blocks_per_batch": self.batching.blocks_per_batch,
            "order": repr(self.order.order),
            "repack": self.repack,
            "replay": repr(self.mixture),
            "seed": self.mixture.seed,
            "ordering": self.order.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of a checkpoint; an empty state starts at the beginning."""
        self.loader.load_state_dict(state)
        self.order.load_state_dict(state.get("ordering", {}))


def check_same_batches(
    state: dict[str, Any], batching: Batching, mixture: Mixture, repack: Repack
) -> None:
    """Raise a ValueError if a run resumes within an epoch with other batches or another order.

    At any position, `data.repack` must be the same.

    Args:
        state: State of `TrainingBatches` in a checkpoint.
        batching: How blocks are divided into batches now.
        mixture: Blocks, their order and replay now.
        repack: `data.repack` now.
    """
    saved = state.get("blocks_per_batch")
    if saved is None:
        return
    if (saved_repack := state.get("repack", "never")) != repack:
        raise ValueError(
            f"data.repack: expected {saved_repack}, as in the run of the checkpoint, got {repack}: "
            "restore it, or start a new run from the exported model"
        )
    if not state["is_within_epoch"]:
        return
    if batching.blocks_per_batch != saved:
        raise ValueError(
            f"data.batch_size: expected {saved} blocks per batch over all devices, because the "
            f"checkpoint was saved within an epoch, got {batching.blocks_per_batch}: set "
            f"data.batch_size to {saved} / devices, or resume from a checkpoint at the end of an "
            "epoch"
        )
    settings = {"order": repr(mixture.order), "replay": repr(mixture), "seed": mixture.seed}
    for name, current in settings.items():
        if (earlier := state.get(name, current)) != current:
            if "WeightedOrder" in f"{earlier}{current}":
                name, earlier, current = (
                    "corpus",
                    _weights_in(str(earlier)),
                    _weights_in(str(current)),
                )
            raise ValueError(
                f"data.{name}: expected {earlier}, because the checkpoint was saved within an "
                f"epoch of it, got {current}: restore it, or resume from a checkpoint at the end "
                "of an epoch"
            )


def _weights_in(order: str) -> str:
    """Return the weights in the description of an order."""
    weights = re.search(r"WeightedOrder\(.*weights=({.*})\)", order)
    return f"the weights {weights[1]}" if weights else "no weights"
