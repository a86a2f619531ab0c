"""Where a run's entropies come from and where they go."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.buckets import EntropyBuckets
from lit_entrodrop.entropy.recorder import EntropyRecorder
from lit_entrodrop.entropy.scoring import entropy_folder, score_split
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from regularizers import Requirements


class Entropies:
    """The entropies of the tokens of a run.

    Those of training tokens come from whichever source the regularizers ask for. Those of the
    tokens that the model is evaluated on come from the initial model, and fix the buckets in which
    they are counted.

    Args:
        requirements: what the regularizers of the run require.
        reference: name of the frozen scorer, if it is not the initial model.
        cache_dir: where reference entropies are cached.
        buckets: of the tokens that the model is evaluated on.
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
        self.stores: dict[str, EntropyStore] = {}
        self.recorder: EntropyRecorder | None = None
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
        """Restore, load or compute what the run needs before its first step.

        Args:
            data: the data module, set up.
            initial: the model before training.
            reference: frozen scorer of the training tokens; None means the initial model.
        """
        self.device = initial.device
        for split in _evaluated(data):
            self._provide_evaluated(split, data, initial)
        self._fix_edges(data)
        if self.source == "reference":
            self._provide("train", data, reference or initial)
        elif self.source == "last_epoch":
            store = self._restored("train", data) or self._blank("train", data)
            self.stores["train"], self.recorder = store, EntropyRecorder(store)
        quantiles = self.restored.get("corpus_quantiles")
        if quantiles is None:
            self.start_epoch()
        else:
            # Within an epoch, its store already holds entropies for the next.
            self.corpus_quantiles = quantiles.to(self.device)
        self.restored = {}
        self.ready = True

    def restore_evaluated(self, data: TextDataModule, device: torch.device) -> None:
        """Take over what a checkpoint knows of the splits, to evaluate its model.

        Args:
            data: the data module, set up; of splits that the run did not have nothing is known.
            device: on which the model is evaluated.
        """
        self.device = device
        known = {split: self._restored_or_none(split, data) for split in _evaluated(data)}
        self.stores = {split: store for split, store in known.items() if store is not None}
        self._fix_edges(data)

    def start_epoch(self) -> None:
        """Take over what the epoch before has recorded."""
        if "train" in self.stores:
            self._settle()
            self.corpus_quantiles = self.stores["train"].quantiles().to(self.device)

    def attach(self, batch: Batch, split: str) -> Batch:
        """Add the stored entropies of a batch, if there are any, while it is in host memory.

        Args:
            batch: as the data module yields it.
            split: where it is from.

        Returns:
            A batch with ``entropy``, ``[B, T]`` fp32 nats; NaN where unknown.
        """
        if split not in self.stores:
            return batch
        return {**batch, "entropy": self.stores[split].lookup(batch["block_id"])}

    def of_inputs(self, batch: Batch, causal_lm: CausalLM) -> Tensor | None:
        """Return the entropies of a training batch, ``[B, T]`` nats, or None if nobody asks."""
        if self.source == "online":
            return score_clean(causal_lm, batch).entropy
        return batch.get("entropy")

    def record(self, batch: Batch, entropy: Tensor) -> None:
        """Keep the entropies of this pass for the next epoch."""
        if self.recorder:
            self.recorder.record(batch["block_id"], entropy)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; to be called on every rank."""
        self._settle()
        stores = {split: store.state_dict() for split, store in self.stores.items()}
        return {**stores, "corpus_quantiles": self.corpus_quantiles, "origin": self.origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the entropies of a checkpoint; they are checked in :meth:`prepare`.

        Those of the training tokens count only if they came from the same source.
        """
        same = state["origin"] == self.origin
        of_training = () if same else ("train", "corpus_quantiles")
        self.restored = {name: kept for name, kept in state.items() if name not in of_training}

    def _fix_edges(self, data: TextDataModule) -> None:
        if "validation" in self.stores:
            edges = self.buckets.edges_in(self.stores["validation"])
            self.edges = edges.to(self.device)
            if (edges.diff() <= 0).any():
                rank_zero_warn(
                    f"entropy_buckets: expected edges that rise, got {edges.tolist()}: the model "
                    "before training gives many tokens the same entropy, so a bucket stays empty; "
                    "take fewer quantiles"
                )

    def _provide_evaluated(self, split: str, data: TextDataModule, initial: CausalLM) -> None:
        if not self.restored:
            self._provide(split, data, initial)
        elif store := self._restored(split, data):
            self.stores[split] = store
        else:
            rank_zero_warn(
                f"data: the checkpoint knows no entropies of these {split} blocks, and the model "
                "before training is not at hand: their loss is told without buckets"
            )

    def _restored_or_none(self, split: str, data: TextDataModule) -> EntropyStore | None:
        kept = self.restored.get(split)
        if kept is None or kept["fingerprint"] != data.fingerprint(split):
            return None
        return self._restored(split, data)

    def _provide(self, split: str, data: TextDataModule, scorer: CausalLM | EntropyStore) -> None:
        if isinstance(scorer, EntropyStore):
            store = scorer
        else:
            restored = self._restored(split, data)
            store = restored or score_split(split, data, scorer, self.cache_dir)[0]
        self.stores[split] = store

    def _restored(self, split: str, data: TextDataModule) -> EntropyStore | None:
        if self.restored.get(split) is None:
            return None
        store = self._blank(split, data)
        store.load_state_dict(self.restored[split])
        return store

    def _blank(self, split: str, data: TextDataModule) -> EntropyStore:
        return EntropyStore.temporary(
            data.num_blocks(split),
            data.block_size,
            data.fingerprint(split),
            entropy_folder(self.cache_dir),
        )

    def _settle(self) -> None:
        if self.recorder:
            self.recorder.flush()
            self.recorder.store.merge_ranks()


def _evaluated(data: TextDataModule) -> list[str]:
    return [*data.evaluated, *(["test"] if data.num_blocks("test") else [])]
