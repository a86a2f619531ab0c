"""Where a run's entropies come from and where they go."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_entrodrop.causal_lm import CausalLM
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.sampling import Batch
from lit_entrodrop.entropy_store import EntropyStore
from lit_entrodrop.scoring import (
    cached_store_path,
    score_blocks,
    score_clean,
)
from regularizers import Requirements

Split = Literal["train", "validation", "test"]


class Entropies:
    """The entropies of training and validation tokens.

    Those of training tokens come from whichever source the regularizers ask for. Those of
    validation tokens come from the initial model and fix the entropy groups of a run: low-entropy
    tokens are those up to the median.

    Args:
        requirements: what the regularizers of the run require.
        reference: name of the frozen scorer, if it is not the initial model.
        cache_dir: where reference entropies are cached.
    """

    def __init__(self, requirements: Requirements, reference: str | None, cache_dir: str) -> None:
        self.source = requirements.entropy
        self.origin = f"{self.source} {reference}"
        self.cache_dir = cache_dir
        self.stores: dict[str, EntropyStore] = {}
        self.restored: dict[str, Any] = {}
        self.corpus_quantiles: Tensor | None = None
        self.threshold = 0.0

    def prepare(
        self,
        data: TextDataModule,
        initial: CausalLM,
        reference: CausalLM | EntropyStore | None,
    ) -> None:
        """Restore, load or compute what the run needs before its first step.

        Args:
            data: the data module, set up.
            initial: the model before training.
            reference: frozen scorer of the training tokens; None means the initial model.
        """
        device = next(initial.parameters()).device
        if data.num_blocks("validation"):
            self._provide("validation", data, initial)
            self.threshold = float(self.stores["validation"].quantiles(3)[1])
        if self.source == "reference":
            self._provide("train", data, reference or initial)
        elif self.source == "last_epoch":
            self.stores["train"] = self._restored("train", data) or blank_store(data, "train")
        for store in self.stores.values():
            store.to(device)
        quantiles = self.restored.get("corpus_quantiles")
        if quantiles is None:
            self.start_epoch()
        else:
            # Within an epoch, its store already holds entropies for the next.
            self.corpus_quantiles = quantiles.to(device)

    def start_epoch(self) -> None:
        """Take over what the epoch before has recorded."""
        if "train" in self.stores:
            self.stores["train"].merge_ranks()
            self.corpus_quantiles = self.stores["train"].quantiles()

    def of_inputs(self, batch: Batch, causal_lm: CausalLM) -> Tensor | None:
        """Return the entropies of a training batch, ``[B, T]`` nats, or None if nobody asks."""
        if self.source is None:
            return None
        if self.source == "online":
            return score_clean(causal_lm, batch).entropy
        return self.stores["train"].lookup(batch["block_id"])

    def record(self, batch: Batch, entropy: Tensor) -> None:
        """Keep the entropies of this pass for the next epoch."""
        if self.source == "last_epoch":
            self.stores["train"].record(batch["block_id"], entropy)

    def of_validation(self, batch: Batch) -> Tensor | None:
        """Return the reference entropies of a validation batch, ``[B, T]``, if they are known."""
        if "validation" not in self.stores:
            return None
        return self.stores["validation"].lookup(batch["block_id"])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        stores = {split: store.state_dict() for split, store in self.stores.items()}
        return {**stores, "corpus_quantiles": self.corpus_quantiles, "origin": self.origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the entropies of a checkpoint; they are checked in :meth:`prepare`.

        Those of the training tokens count only if they came from the same source.
        """
        same = state["origin"] == self.origin
        self.restored = state if same else {"validation": state.get("validation")}

    def _provide(self, split: Split, data: TextDataModule, scorer: CausalLM | EntropyStore) -> None:
        store = scorer if isinstance(scorer, EntropyStore) else self._restored(split, data)
        if store is None:
            assert isinstance(scorer, CausalLM), "a scorer is a model or a finished store"
            store = score_split(split, data, scorer, self.cache_dir)
        self.stores[split] = store

    def _restored(self, split: Split, data: TextDataModule) -> EntropyStore | None:
        if self.restored.get(split) is None:
            return None
        return EntropyStore.from_state_dict(self.restored[split], data.fingerprint(split))


def score_split(
    split: Split, data: TextDataModule, scorer: CausalLM, cache_dir: str | Path
) -> EntropyStore:
    """Return the entropies of a split under a frozen model, from the cache if they are there."""
    path = cached_store_path(cache_dir, scorer, data.fingerprint(split))
    if path.exists():
        return EntropyStore.load(path, data.fingerprint(split))
    store = score_blocks(
        scorer, data.ordered_dataloader(split), blank_store(data, split), f"Scoring {split}"
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        store.save(path)
    return store


def blank_store(data: TextDataModule, split: Split) -> EntropyStore:
    """Return a store for the blocks of a split, in which no entropy is known."""
    return EntropyStore(data.num_blocks(split), data.block_size, data.fingerprint(split))
