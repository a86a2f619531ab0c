"""Scoring: the entropy, or the loss, of every token under a frozen model on clean input."""

from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.loading.loaders import missing_dataloader
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.entropy.partial_scores import PartialScores
from lit_entrodrop.entropy.score_cache import cached_store_path
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.runtime.async_copy import HostQueue
from lit_entrodrop.runtime.progress import track
from lit_entrodrop.runtime.ranks import all_agree, is_first, wait_for_all

Quantity = Literal["entropy", "nll"]


def score_split(
    split: str,
    data: TextDataModule,
    scorer: CausalLM,
    cache_dir: str | Path,
    first: int | None = None,
) -> tuple[EntropyStore, Path]:
    """Return the entropies of a split under a frozen model, as `score_blocks` does."""
    return score_blocks(data, data.blocks(split), scorer, cache_dir, split, first=first)


def score_blocks(
    data: TextDataModule,
    blocks: PackedBlocks,
    scorer: CausalLM,
    cache_dir: str | Path,
    name: str,
    quantity: Quantity = "entropy",
    first: int | None = None,
) -> tuple[EntropyStore, Path]:
    """Return a quantity of all tokens of some blocks under a frozen model, cached on disk.

    A killed pass resumes where it stopped. Call it within the precision context of the run, on
    every rank.

    Args:
        data: The data module, set up, which shards the blocks over ranks.
        blocks: Blocks to score.
        scorer: The model, on its device.
        cache_dir: Path to the cache folder.
        name: Name of the blocks, for the progress bar.
        quantity: Output of the model to store for each token, in nats.
        first: Number of first blocks to score; None for all. The others may be unknown.

    Returns:
        The store, and the path to its cache file.
    """
    fingerprint = blocks.fingerprint
    path = cached_store_path(cache_dir, scorer, fingerprint, quantity)
    finished = _load_finished(path, fingerprint)
    if all_agree(finished is not None and bool(finished.known[:first].all())):
        assert finished is not None, "all ranks have it"
        return finished, path
    scores = PartialScores(path, len(blocks), blocks.block_size, fingerprint)
    scores.store.merge_ranks()
    _score_missing(data, blocks, scorer, scores.store, name, quantity, first)
    scores.finish(is_first())
    wait_for_all()
    # Ranks on other machines may not see the file.
    return EntropyStore.load(path, fingerprint) if path.exists() else scores.store, path


def _score_missing(
    data: TextDataModule,
    blocks: PackedBlocks,
    scorer: CausalLM,
    store: EntropyStore,
    name: str,
    quantity: Quantity,
    first: int | None,
) -> None:
    # The known blocks of the store are the same on every rank.
    loader, done = missing_dataloader(blocks, store.known[:first], data.block_size, data.batching)
    queue = HostQueue(store.record)
    total = done + len(loader)
    for batch in track(loader, f"Scoring {name}", total, completed=done, unit="batches"):
        on_device = {
            key: tensor.to(scorer.device, non_blocking=True) for key, tensor in batch.items()
        }
        outputs = score_clean(scorer, on_device)
        queue.put(on_device["block_id"], getattr(outputs, quantity).detach().half())
    queue.flush()
    store.merge_ranks()


def _load_finished(path: Path, fingerprint: str) -> EntropyStore | None:
    if not path.exists():
        return None
    try:
        return EntropyStore.load(path, fingerprint)
    except ValueError as error:
        rank_zero_warn(f"the cache has a damaged file, which is scored again: {error}")
        return None
