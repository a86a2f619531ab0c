"""Holdout gain of each training chunk, measured once before training."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.entropy.holdout.context import with_context
from lit_entrodrop.entropy.holdout.nearest import nearest_chunks
from lit_entrodrop.entropy.scoring import score_blocks
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.store_file import slabs
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from regularizers import Requirements


class HoldoutGains:
    """Loss reduction of each training chunk by holdout text as context, in nats per token."""

    def __init__(self, requirements: Requirements, cache_dir: str) -> None:
        self.neighbors = requirements.holdout_neighbors
        self.cache_dir = cache_dir
        self.gains: Tensor | None = None
        self.restored: dict[str, Any] | None = None

    def check(self, data: TextDataModule) -> None:
        """Raise a ValueError if the regularizers need holdout text and the data has none."""
        if self.neighbors is not None and not data.num_blocks("holdout"):
            raise ValueError(
                "data.holdout: expected holdout text, because a regularizer prefers documents that "
                "resemble it, got none: set data.holdout to a share of the corpus such as 0.1, or "
                "to a separate corpus"
            )

    def prepare(self, data: TextDataModule, initial: CausalLM) -> None:
        """Restore, load or compute the gains, if they are required.

        Call it within the precision context of the run, on every rank. `initial`, the model before
        training, is not used after a checkpoint was restored.

        Raises:
            ValueError: If the checkpoint has no gains, or gains of other settings.
        """
        if self.neighbors is None:
            return
        self.blocks, self.origin = data.blocks("train"), _origin(data, self.neighbors)
        if self.restored is None:
            gains = measure_gains(data, initial, self.neighbors, self.cache_dir)
            self.gains = torch.from_numpy(gains)
        elif self.restored.get("origin") == self.origin:
            self.gains = self.restored["gains"]
        else:
            raise ValueError(
                "ckpt_path: expected a checkpoint with the gains of this data.holdout and number "
                "of neighbors, got one with others or none, and only the initial model can "
                "measure them: restore these settings, or start a new run"
            )

    def attach(self, batch: Batch) -> Batch:
        """Add `holdout_gain`, if required, to a training batch in host memory.

        It has the gain of each token's chunk, [B, T] fp32 nats; NaN for padding and for chunks
        without a label. Under `data.repack`, that is its chunk in the first epoch.
        """
        if self.gains is None:
            return batch
        if "token_index" in batch:
            chunks = self.blocks.chunks_of_labels(batch["token_index"])
        else:
            chunks = self.blocks.chunk_numbers(batch["block_id"], batch["document_ids"])
        gain = self.gains[chunks.clamp(min=0)].masked_fill(chunks < 0, torch.nan)
        pinned = gain.pin_memory() if batch["block_id"].is_pinned() else gain
        return {**batch, "holdout_gain": pinned}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {} if self.gains is None else {"gains": self.gains, "origin": self.origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the gains of a checkpoint, which `prepare` checks."""
        self.restored = state


def measure_gains(
    data: TextDataModule, initial: CausalLM, neighbors: int, cache_dir: str
) -> NDArray[np.float32]:
    """Measure how much its nearest holdout chunks reduce the loss of each training chunk.

    Both losses are means over the same labels. They are cached by token, so a killed measurement
    resumes where it stopped.

    Returns:
        Gain of each chunk, [chunks] fp32, nats per token; NaN for a chunk without a label.
    """
    train, holdout = data.blocks("train"), data.blocks("holdout")
    nearest = nearest_chunks(train, holdout, neighbors)
    context = getattr(initial.unwrapped.config, "max_position_embeddings", None) or math.inf
    # There may be fewer neighbors than requested.
    length = int(min(context, (nearest.shape[1] + 1) * data.block_size))
    joined, counted = with_context(train, holdout, nearest, length, data.packing)

    def score(blocks: PackedBlocks, name: str) -> EntropyStore:
        return score_blocks(data, blocks, initial, cache_dir, name, "nll")[0]

    alone = chunk_losses(score(train, "train"), train, counted)
    in_context = np.empty_like(alone)
    scored = score(joined, "train after holdout")
    in_context[joined.chunks.documents] = chunk_losses(scored, joined, joined.gather()[1])
    return (alone - in_context).astype(np.float32)


def chunk_losses(
    store: EntropyStore, blocks: PackedBlocks, counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Average the counted losses of each chunk, [chunks] nats per token; NaN where none counts."""
    sums = []
    for slab in slabs(len(blocks), blocks.block_size):
        numbers = range(len(blocks))[slab]
        firsts = blocks.block_starts[numbers.start : numbers.stop + 1]
        starts = blocks.chunk_starts[firsts[0] : firsts[-1] + 1]
        losses = store.lookup(torch.arange(numbers.start, numbers.stop)).double().numpy()
        filled = np.diff(blocks.chunk_starts[firsts])[:, None] > np.arange(blocks.block_size)
        chosen = counted[starts[0] : starts[-1]]
        terms = np.stack([np.where(chosen, losses[filled], 0.0), chosen])
        sums.append(np.add.reduceat(terms, starts[:-1] - starts[0], axis=1))
    totals, counts = np.concatenate(sums, axis=1)
    return np.asarray(np.where(counts > 0, totals / np.maximum(counts, 1), np.nan))


def _origin(data: TextDataModule, neighbors: int) -> str:
    return f"{neighbors} of {data.fingerprint('holdout')} before {data.fingerprint('train')}"
