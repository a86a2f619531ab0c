"""The holdout gain of each training chunk: measured once before training, then kept."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.entropy.file import slabs
from lit_entrodrop.entropy.holdout.context import in_context
from lit_entrodrop.entropy.holdout.nearest import nearest_chunks
from lit_entrodrop.entropy.scoring import Scoring, score_blocks
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from regularizers import Requirements


class HoldoutGains:
    """By how many nats a token the loss of each training chunk falls behind holdout text.

    Args:
        requirements: what the regularizers of the run require.
        cache_dir: where the losses of which gains are made are cached.
    """

    def __init__(self, requirements: Requirements, cache_dir: str) -> None:
        self.neighbours = requirements.holdout_neighbours
        self.cache_dir = cache_dir
        self.gains: Tensor | None = None
        self.restored: dict[str, Any] | None = None

    def check(self, data: TextDataModule) -> None:
        """Refuse data without the holdout text that the regularizers need.

        Raises:
            ValueError: saying what to set.
        """
        if self.neighbours is not None and not data.num_blocks("holdout"):
            raise ValueError(
                "data.holdout: expected holdout text, as a regularizer prefers what resembles it, "
                "got none: set data.holdout to a share of the corpus such as 0.1, or to a corpus "
                "of its own"
            )

    def prepare(self, data: TextDataModule, initial: CausalLM) -> None:
        """Restore, load or compute the gains, if they are required.

        To be called within the precision context of the run, on every rank.

        Args:
            data: the data module, set up.
            initial: the model before training, or any after a checkpoint was restored.

        Raises:
            ValueError: if the checkpoint holds others.
        """
        if self.neighbours is None:
            return
        self.blocks, self.origin = data.blocks("train"), _origin(data, self.neighbours)
        if self.restored is None:
            gains = measure_gains(data, initial, self.neighbours, self.cache_dir)
            self.gains = torch.from_numpy(gains)
        elif self.restored.get("origin") == self.origin:
            self.gains = self.restored["gains"]
        else:
            raise ValueError(
                "ckpt_path: expected a checkpoint with the gains of this data.holdout and number "
                "of neighbours, got one with others or none, and the model before training, which "
                "measures them, is not at hand: restore these settings, or start a new run"
            )

    def attach(self, batch: Batch) -> Batch:
        """Add the gains of a training batch, if there are any, while it is in host memory.

        Args:
            batch: as the data module yields it.

        Returns:
            A batch with ``holdout_gain``, ``[B, T]`` fp32 nats, of the chunk of each token; NaN for
            padding and for chunks without a label.
        """
        if self.gains is None:
            return batch
        chunks = self.blocks.chunk_numbers(batch["block_id"], batch["document_ids"])
        gain = self.gains[chunks.clamp(min=0)].masked_fill(chunks < 0, torch.nan)
        return {
            **batch,
            "holdout_gain": gain.pin_memory() if batch["block_id"].is_pinned() else gain,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {} if self.gains is None else {"gains": self.gains, "origin": self.origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the gains of a checkpoint; they are checked in :meth:`prepare`."""
        self.restored = state


def measure_gains(
    data: TextDataModule, initial: CausalLM, neighbours: int, cache_dir: str
) -> NDArray[np.float32]:
    """Compare the loss of each training chunk alone and behind its nearest holdout chunks.

    Both losses are means over the same labels. They are cached by token, so that a killed
    measurement goes on where it stood.

    Args:
        data: the data module, set up.
        initial: the model, on the device where it is to run.
        neighbours: holdout chunks before each training chunk.
        cache_dir: folder of the cache.

    Returns:
        ``[chunks]``, nats a token; NaN where a chunk has no label.
    """
    train, holdout = data.blocks("train"), data.blocks("holdout")
    nearest = nearest_chunks(train, holdout, neighbours)
    context = getattr(initial.unwrapped.config, "max_position_embeddings", None) or math.inf
    # Fewer than asked for if there are no more.
    length = int(min(context, (nearest.shape[1] + 1) * data.block_size))
    joined = in_context(train, holdout, nearest, length, data.packing)

    def score(blocks: PackedBlocks, name: str) -> EntropyStore:
        return score_blocks(Scoring(data, blocks, name, "nll"), initial, cache_dir)[0]

    alone = chunk_losses(score(train, "train"), train, joined.alone)
    behind = np.empty_like(alone)
    scored = score(joined.blocks, "train behind holdout")
    behind[joined.blocks.documents] = chunk_losses(scored, joined.blocks, joined.blocks.counted)
    return (alone - behind).astype(np.float32)


def chunk_losses(
    store: EntropyStore, blocks: PackedBlocks, counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Average the losses of each chunk.

    Args:
        store: losses of the tokens of all blocks.
        blocks: the blocks.
        counted: ``[tokens]``, which tokens count.

    Returns:
        ``[chunks]``, nats a token; NaN where none counts.
    """
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


def _origin(data: TextDataModule, neighbours: int) -> str:
    return f"{neighbours} of {data.fingerprint('holdout')} before {data.fingerprint('train')}"
