"""The entropy of every token of a corpus, kept by block.

Entropies depend on packing, so a store knows the fingerprint of the blocks that it belongs to, and
refuses others.
"""

import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class EntropyStore:
    """Entropies of the tokens of all blocks, fp16 in nats; NaN where unknown.

    Args:
        num_blocks: number of blocks of the split.
        block_size: tokens per block, T.
        fingerprint: content hash of the blocks.

    >>> store = EntropyStore(2, 3, "abc")
    >>> store.record(torch.tensor([1]), torch.tensor([[0.5, 1.0, 1.5]]))
    >>> store.lookup(torch.tensor([1, 0]))
    tensor([[0.5000, 1.0000, 1.5000],
            [   nan,    nan,    nan]])
    """

    def __init__(self, num_blocks: int, block_size: int, fingerprint: str) -> None:
        self.values = torch.full((num_blocks, block_size), torch.nan, dtype=torch.float16)
        self.fresh = torch.zeros(num_blocks, dtype=torch.bool)
        self.fingerprint = fingerprint

    def to(self, device: torch.device) -> "EntropyStore":
        """Move the values to a device: reading and writing them there needs no synchronisation."""
        self.values = self.values.to(device)
        self.fresh = self.fresh.to(device)
        return self

    def record(self, block_id: Tensor, entropy: Tensor) -> None:
        """Keep the entropies of some blocks.

        Args:
            block_id: ``[B]`` int64; -1 stands for a dummy block and is not kept.
            entropy: ``[B, T]``, nats.
        """
        # Dummies repeat a real block: to sort them out would wait for the device, and to write an
        # old row beside a new one would leave to chance which of the two stays.
        donor = block_id.argmax()
        source = torch.where(
            block_id >= 0, torch.arange(len(block_id), device=block_id.device), donor
        )
        rows, known = block_id[source].clamp(min=0), block_id[donor] >= 0
        self.values[rows] = torch.where(known, entropy[source].to(torch.float16), self.values[rows])
        self.fresh[rows] |= known

    def lookup(self, block_id: Tensor) -> Tensor:
        """Return the entropies of some blocks, ``[B, T]`` fp32; NaN where unknown."""
        real = (block_id >= 0)[:, None]
        return self.values[block_id.clamp(min=0)].float().masked_fill(~real, torch.nan)

    def quantiles(self, count: int = 1001) -> Tensor:
        """Return evenly spaced quantiles of the known entropies, ``[count]`` fp32; NaN if none.

        Above 2²³ tokens they are taken of an evenly spaced sample.
        """
        known = self.values[~self.values.isnan()].float()
        if known.numel() == 0:
            return self.values.new_full((count,), torch.nan, dtype=torch.float32)
        known = known[:: max(1, known.numel() // 2**23)].sort().values
        places = torch.linspace(0, known.numel() - 1, count, device=known.device)
        return known[places.round().long()]

    def merge_ranks(self) -> None:
        """Take over what other ranks have recorded since the last merge."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            recorded = self.values.float().nan_to_num(nan=-1.0)
            recorded = recorded.masked_fill(~self.fresh[:, None], -2.0)
            torch.distributed.all_reduce(recorded, op=torch.distributed.ReduceOp.MAX)
            known = recorded.masked_fill(recorded < 0, torch.nan).to(torch.float16)
            self.values = torch.where(recorded > -2, known, self.values)
        self.fresh.zero_()

    def state_dict(self) -> dict[str, Tensor | str]:
        """Return what a checkpoint keeps."""
        return {"values": self.values.cpu(), "fingerprint": self.fingerprint}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor | str], fingerprint: str) -> "EntropyStore":
        """Rebuild a store for blocks of a given fingerprint.

        Raises:
            ValueError: if the state belongs to other blocks.
        """
        if state["fingerprint"] != fingerprint:
            raise ValueError(
                f"entropies: expected those of the blocks {fingerprint}, got those of "
                f"{state['fingerprint']}: corpus, tokenizer or packing have changed since; score "
                "again with `lit-entrodrop score`, or restore the data settings"
            )
        values = state["values"]
        assert isinstance(values, Tensor), "a state dict holds a tensor of values"
        store = cls(len(values), values.shape[1], fingerprint)
        store.values = values.clone()
        return store

    def save(self, path: Path) -> None:
        """Write the store as a safetensors file, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(descriptor)
        try:
            save_file(
                {"entropy": self.values.cpu().contiguous()},
                temporary,
                metadata={"fingerprint": self.fingerprint},
            )
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> "EntropyStore":
        """Read a store for blocks of a given fingerprint.

        Raises:
            ValueError: if the file is no store, is damaged, or belongs to other blocks.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                values = file.get_tensor("entropy")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"entropies: expected a file written by `lit-entrodrop score`, got {path}: {error}"
            ) from error
        state = {"values": values, "fingerprint": metadata.get("fingerprint", "unknown")}
        return cls.from_state_dict(state, fingerprint)
