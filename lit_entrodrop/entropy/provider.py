"""Entropies of a run: computed, restored or recorded, and added to batches."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.buckets import EntropyBuckets
from lit_entrodrop.entropy.score_cache import entropy_folder
from lit_entrodrop.entropy.scoring import score_split
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.token_store import TokenEntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.runtime.async_copy import HostQueue
from regularizers import Requirements

Store = EntropyStore | TokenEntropyStore


class EntropyProvider:
    """Provide the entropies of the tokens of a run.

    Entropies of training tokens come from the source that the regularizers require. Entropies of
    evaluation tokens come from the initial model, and fix the entropy buckets of the metrics.

    Args:
        requirements: Requirements of the regularizers of the run.
        reference: Name of the frozen scorer; None for the initial model.
        cache_dir: Path to the cache folder of computed entropies.
        buckets: Entropy buckets of the evaluation tokens.
    """

    def __init__(
        self,
        requirements: Requirements,
        reference: str | None,
        cache_dir: str,
        buckets: EntropyBuckets = EntropyBuckets(),  # noqa: B008
    ) -> None:
        self.source = requirements.entropy
        self.buckets = buckets
        self.origin = f"{self.source} {reference}"
        self.cache_dir = cache_dir
        self.stores: dict[str, Store] = {}
        self._recording: HostQueue | None = None
        self.restored: dict[str, Any] = {}
        self.corpus_quantiles: Tensor | None = None
        self.edges: Tensor | None = None
        self.ready = False

    def prepare(
        self,
        data: TextDataModule,
        initial: CausalLM,
        reference: CausalLM | EntropyStore | None,
    ) -> None:
        """Restore, load or compute the entropies that the run needs before its first step.

        Args:
            data: The data module, set up.
            initial: The model before training.
            reference: Frozen scorer of the training tokens, or their entropies; None for the
                initial model.
        """
        self.device = initial.device
        for split in _evaluated(data):
            if data.evaluated_blocks(split):
                self._provide_evaluated(split, data, initial)
        self._fix_edges(data)
        if self.source == "reference":
            self._provide_train(data, reference or initial)
        elif self.source == "last_epoch":
            store = self._restored_store("train", data) or self._empty_store("train", data)
            self.stores["train"], self._recording = store, HostQueue(store.record)
        quantiles = self.restored.get("corpus_quantiles")
        if quantiles is None:
            self.start_epoch()
        else:
            # Within an epoch, the store already contains entropies for the next one.
            self.corpus_quantiles = quantiles.to(self.device)
        self.restored = {}
        self.ready = True

    def restore_evaluated(self, data: TextDataModule, device: torch.device) -> None:
        """Restore the entropies of evaluation splits from a checkpoint, to evaluate its model.

        Splits that the run did not have, or whose blocks differ, get no entropies.
        """
        self.device = device
        self.stores = {
            split: store
            for split in _evaluated(data)
            if self.restored.get(split, {}).get("fingerprint") == data.fingerprint(split)
            and (store := self._restored_store(split, data))
        }
        for split, store in self.stores.items():
            _warn_of_unknown(split, data, store)
        self._fix_edges(data)

    def start_epoch(self) -> None:
        """Switch to the entropies that the last epoch recorded."""
        if self._recording:
            self._recording.flush()
            self.stores["train"].start_epoch()
        if "train" in self.stores:
            self.corpus_quantiles = self.stores["train"].quantiles().to(self.device)

    def attach(self, batch: Batch, split: str) -> Batch:
        """Add the stored `entropy`, if any, to a batch in host memory.

        It is [B, T] fp32 nats; NaN where unknown.
        """
        if split not in self.stores:
            return batch
        return {**batch, "entropy": self.stores[split].lookup(_places(batch))}

    def of_inputs(self, batch: Batch, causal_lm: CausalLM) -> Tensor | None:
        """Return the entropies of a training batch, [B, T] nats; None if not required."""
        if self.source == "online":
            return score_clean(causal_lm, batch).entropy
        return batch.get("entropy")

    def record(self, batch: Batch, entropy: Tensor) -> None:
        """Record the entropies of this pass for the next epoch."""
        if self._recording:
            self._recording.put(_places(batch), entropy.detach().half())

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; call it on every rank."""
        if self._recording:
            self._recording.flush()
            self.stores["train"].merge_ranks()
        stores = {split: store.state_dict() for split, store in self.stores.items()}
        return {**stores, "corpus_quantiles": self.corpus_quantiles, "origin": self.origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the entropies of a checkpoint, which `prepare` checks.

        Those of training tokens are restored only if they come from the same source.
        """
        same = state["origin"] == self.origin
        of_training = () if same else ("train", "corpus_quantiles")
        self.restored = {name: kept for name, kept in state.items() if name not in of_training}

    def _fix_edges(self, data: TextDataModule) -> None:
        # The validation split if there is one.
        if (first := next(iter(data.evaluated), None)) in self.stores:
            store = self.stores[first]
            assert isinstance(store, EntropyStore), "evaluated blocks stay the same"
            edges = self.buckets.edges_in(store, data.blocks(first))
            self.edges = edges.to(self.device)
            if (edges.diff() <= 0).any():
                rank_zero_warn(
                    f"entropy_buckets: expected increasing edges, got {edges.tolist()}: many "
                    "tokens share one entropy under the initial model, so a bucket stays empty: "
                    "set fewer quantiles"
                )

    def _provide_evaluated(self, split: str, data: TextDataModule, initial: CausalLM) -> None:
        if not self.restored:
            first = data.evaluated_blocks(split)
            self.stores[split] = score_split(split, data, initial, self.cache_dir, first)[0]
        elif store := self._restored_store(split, data):
            self.stores[split] = store
            _warn_of_unknown(split, data, store)
        else:
            rank_zero_warn(
                f"data: expected the {split} blocks of the checkpoint, got others, whose entropies "
                "under the initial model are unknown: their loss is reported without buckets"
            )

    def _provide_train(self, data: TextDataModule, scorer: CausalLM | EntropyStore) -> None:
        if not isinstance(scorer, EntropyStore):
            if restored := self._restored_store("train", data):
                self.stores["train"] = restored
                return
            scorer = score_split("train", data, scorer, self.cache_dir)[0]
        self.stores["train"] = scorer
        if data.repacking:
            settings = data.blocks("train"), entropy_folder(self.cache_dir)
            self.stores["train"] = TokenEntropyStore.of_blocks(scorer, *settings)

    def _restored_store(self, split: str, data: TextDataModule) -> Store | None:
        if self.restored.get(split) is None:
            return None
        store = self._empty_store(split, data)
        store.load_state_dict(self.restored[split])
        return store

    def _empty_store(self, split: str, data: TextDataModule) -> Store:
        rest = data.block_size, data.fingerprint(split), entropy_folder(self.cache_dir)
        if split == "train" and data.repacking:
            return TokenEntropyStore(len(data.blocks("train").tokens), *rest)
        return EntropyStore.temporary(data.num_blocks(split), *rest)


def _places(batch: Batch) -> Tensor:
    """Return where the entropies of a batch are stored: by token under `data.repack`."""
    return batch.get("token_index", batch["block_id"])


def _warn_of_unknown(split: str, data: TextDataModule, store: Store) -> None:
    needed = data.evaluated_blocks(split)
    if unknown := int((~store.known[:needed]).sum()):
        rank_zero_warn(
            f"data: expected the entropies of {needed} {split} blocks under the initial model, but "
            f"those of {unknown} are unknown, as the limits of the run excluded them: losses by "
            "entropy bucket cover the others"
        )


def _evaluated(data: TextDataModule) -> list[str]:
    return [*data.evaluated, *(["test"] if data.num_blocks("test") else [])]
