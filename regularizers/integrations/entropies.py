"""Entropies of the last epoch, looked up by the content of each document.

Shuffling, other batches, packing and resuming change neither the tokens of a document nor their
entropies. So no column of the dataset has to reach the model.

B rows in the batch, T tokens in a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regularizers.functional import document_positions, number_documents

QUANTILES = 1001
# Odd constants of MurmurHash3 and SplitMix64, as signed integers.
MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


@dataclass(frozen=True)
class DocumentKeys:
    """Hashes of the documents of a batch.

    Args:
        keys: Hash of each run of tokens of one document, or of padding, along the flattened batch.
        lengths: Number of tokens of each run.
        shape: Shape of the batch, ``[B, T]``.
    """

    keys: list[int]
    lengths: list[int]
    shape: torch.Size


def document_keys(input_ids: Tensor, document_ids: Tensor) -> DocumentKeys:
    """Hash the token ids of each document of a batch, to 64 bits.

    Args:
        input_ids: Token ids ``[B, T]`` int64.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.

    >>> ids, documents = torch.tensor([[7, 8, 9, 7, 8]]), torch.tensor([[0, 0, 0, 1, 1]])
    >>> first, second = document_keys(ids, documents).keys
    >>> document_keys(ids[:, 3:], documents[:, 3:]).keys == [second] != [first]
    True
    """
    numbers = number_documents(document_ids).flatten()
    mixed = _mix(_mix(input_ids + 1) ^ (document_positions(document_ids) * MIX[0])).flatten()
    runs = int(numbers[-1]) + 1
    sums = torch.zeros(runs, dtype=torch.int64, device=input_ids.device)
    lengths = torch.zeros_like(sums).scatter_add(0, numbers, torch.ones_like(numbers))
    keys = _mix(sums.scatter_add(0, numbers, mixed) ^ lengths)
    return DocumentKeys(keys.tolist(), lengths.tolist(), input_ids.shape)


class DocumentEntropies:
    """Entropies of the last epoch and of the current one, fp16 nats in host memory.

    Args:
        gather: Function that concatenates the lists of all ranks.

    >>> documents = torch.zeros(1, 2, dtype=torch.int64)
    >>> keys = document_keys(torch.tensor([[3, 4]]), documents)
    >>> entropies = DocumentEntropies()
    >>> entropies.record(keys, torch.tensor([[torch.nan, 1.5]]))
    >>> entropies.lookup(keys)
    tensor([[nan, nan]])
    >>> entropies.start_epoch()
    >>> entropies.lookup(keys)
    tensor([[   nan, 1.5000]])
    """

    def __init__(self, gather: Callable[[list[Any]], list[Any]] = list) -> None:
        self._gather = gather
        self._last: dict[int, Tensor] = {}
        self._current: dict[int, Tensor] = {}
        # On the device: copying them at once would wait for it in each step.
        self._recent: list[tuple[DocumentKeys, Tensor]] = []
        #: Evenly spaced quantiles of the entropies of the last epoch, fp32; NaN if none are known.
        self.quantiles = torch.full((QUANTILES,), torch.nan)

    def record(self, keys: DocumentKeys, entropy: Tensor) -> None:
        """Record the entropies ``[B, T]`` of a batch for the next epoch."""
        self._recent.append((keys, entropy.detach().half()))

    def lookup(self, keys: DocumentKeys) -> Tensor:
        """Return the entropies of the last epoch, ``[B, T]`` fp32 on the CPU; NaN if unknown."""
        rows = [
            self._last.get(key, torch.full((length,), torch.nan, dtype=torch.float16))
            for key, length in zip(keys.keys, keys.lengths, strict=True)
        ]
        return torch.cat(rows).view(keys.shape).float()

    def knows(self, keys: DocumentKeys) -> bool:
        """Return whether all documents of a batch were recorded before this epoch."""
        return all(key in self._last for key in keys.keys)

    def start_epoch(self) -> None:
        """Use the entropies of the epoch that ends, of all ranks; call it on every rank."""
        self._flush()
        self._last |= self._current
        self._current = {}
        values = torch.cat([*self._last.values(), torch.empty(0, dtype=torch.float16)])
        values = values[~values.isnan()].float().sort().values
        if len(values):
            places = torch.linspace(0, len(values) - 1, QUANTILES, dtype=torch.float64).round()
            self.quantiles = values[places.long()]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; call it on every rank."""
        self._flush()
        state = {"last": _packed(self._last), "current": _packed(self._current)}
        return {**state, "quantiles": self.quantiles}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._last, self._current = (_unpacked(state[name]) for name in ("last", "current"))
        self.quantiles, self._recent = state["quantiles"], []

    def _flush(self) -> None:
        own = []
        for keys, entropy in self._recent:
            parts = entropy.cpu().flatten().split(keys.lengths)
            own += [(key, part.clone()) for key, part in zip(keys.keys, parts, strict=True)]
        self._recent = []
        self._current |= dict(self._gather(own))


def _mix(values: Tensor) -> Tensor:
    """Scramble integers, as the finalizer of SplitMix64 does with arithmetic shifts."""
    values = (values ^ (values >> 30)) * MIX[1]
    values = (values ^ (values >> 27)) * MIX[2]
    return values ^ (values >> 31)


def _packed(entropies: Mapping[int, Tensor]) -> dict[str, Tensor]:
    return {
        "keys": torch.tensor(list(entropies), dtype=torch.int64),
        "lengths": torch.tensor([len(each) for each in entropies.values()], dtype=torch.int64),
        "values": torch.cat([*entropies.values(), torch.empty(0, dtype=torch.float16)]),
    }


def _unpacked(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    parts = state["values"].split(state["lengths"].tolist())
    return dict(zip(state["keys"].tolist(), parts, strict=True))
