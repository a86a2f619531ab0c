"""Entropy of every token of a corpus, stored by its place in the documents.

Under `data.repack`, the blocks of an epoch find the entropies that other blocks recorded.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.store_file import SLAB


class TokenEntropyStore:
    """Entropies of all tokens, fp16 in nats; NaN where unknown.

    Values that are recorded in an epoch replace those of earlier epochs when the next one starts.
    Until then, they are kept apart, so that what a lookup finds does not depend on the order of
    blocks and ranks. If several chunks of an epoch share a token, the largest value counts.

    Both sets of values are in the files of `EntropyStore`: a row has consecutive tokens.

    Args:
        num_tokens: Number of tokens of the split.
        width: Number of tokens in a row.
        fingerprint: Content hash of the blocks of the first epoch.
        folder: Path to the folder of the files, which are unnamed.

    >>> store = TokenEntropyStore(5, 4, "abc", Path("/tmp"))
    >>> store.record(torch.tensor([[4, 2, -1]]), torch.tensor([[0.5, 1.0, 9.0]]))
    >>> store.lookup(torch.tensor([[2, 4]])), store.start_epoch() or store.lookup(torch.arange(5))
    (tensor([[nan, nan]]), tensor([   nan,    nan, 1.0000,    nan, 0.5000]))
    """

    def __init__(self, num_tokens: int, width: int, fingerprint: str, folder: Path) -> None:
        self._settings = -(-num_tokens // width), width, fingerprint, folder
        self._known = EntropyStore.temporary(*self._settings)
        self._recorded = EntropyStore.temporary(*self._settings)

    @classmethod
    def of_blocks(
        cls, store: EntropyStore, blocks: PackedBlocks, folder: Path
    ) -> "TokenEntropyStore":
        """Return the values of a store of some blocks, by token."""
        known = cls(len(blocks.tokens), blocks.block_size, blocks.fingerprint, folder)
        for numbers in torch.arange(len(blocks)).split(max(1, SLAB // blocks.block_size)):
            known.record(blocks.token_indices(numbers), store.lookup(numbers))
        known._publish()
        return known

    def record(self, token_index: Tensor, entropy: Tensor) -> None:
        """Record the entropies of some tokens for the next epoch.

        Args:
            token_index: Indices of tokens, int64 in host memory; -1 for padding, which is not
                recorded.
            entropy: Entropies in host memory, of the same shape, nats; NaN for tokens that nothing
                predicts, whose earlier values stay.
        """
        known = (token_index >= 0) & ~entropy.isnan()
        values = entropy.detach()[known].to(torch.float16).numpy()
        self._recorded.raise_to(token_index[known].numpy(), values)

    def lookup(self, token_index: Tensor) -> Tensor:
        """Return what earlier epochs recorded, fp32 of the same shape; NaN where unknown.

        It is in pinned memory if `token_index`, as in `record`, is.
        """
        return self._known.lookup_tokens(token_index)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each row has values, [rows] bool."""
        return self._known.known

    def quantiles(self) -> Tensor:
        """Return quantiles as `EntropyStore.quantiles` does."""
        return self._known.quantiles()

    def start_epoch(self) -> None:
        """Replace earlier values by those that ranks recorded; call it on every rank."""
        self.merge_ranks()
        self._publish()

    def merge_ranks(self) -> None:
        """Exchange what ranks recorded since the last merge; call it on every rank."""
        self._recorded.merge_ranks()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        recorded = self._recorded.state_dict() if self._recorded.known.any() else None
        return {"known": self._known.state_dict(), "recorded": recorded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values of a checkpoint.

        Raises:
            ValueError: If the state belongs to other blocks.
        """
        self._known.load_state_dict(state["known"])
        if state["recorded"]:
            self._recorded.load_state_dict(state["recorded"])

    def _publish(self) -> None:
        self._known.replace_by(self._recorded)
        self._recorded = EntropyStore.temporary(*self._settings)
