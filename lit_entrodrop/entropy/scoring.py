"""Score a corpus with a frozen model: the entropy, or the loss, of every token on clean input."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.distributed.tensor import DTensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.loaders import missing_dataloader
from lit_entrodrop.entropy.partial import PartialScores
from lit_entrodrop.entropy.recorder import EntropyRecorder
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.runtime.progress import track
from lit_entrodrop.runtime.ranks import all_agree, is_first, wait_for_all

Split = Literal["train", "validation", "test"]  # what `score` takes

# They tell where a model comes from, not what it computes.
IRRELEVANT_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version")


@dataclass(frozen=True)
class Scoring:
    """What is scored of which blocks.

    Args:
        data: the data module, set up, which deals the blocks to ranks.
        blocks: of any split, or others.
        name: what the progress bar calls them.
        quantity: which of the outputs is kept for each token, nats.
    """

    data: TextDataModule
    blocks: PackedBlocks
    name: str
    quantity: Literal["entropy", "nll"] = "entropy"


def score_missing(causal_lm: CausalLM, scoring: Scoring, store: EntropyStore) -> None:
    """Record what a frozen model gives to those blocks that a store does not know.

    Args:
        causal_lm: the model, on the device where it is to run.
        scoring: what is scored.
        store: where the values go; it knows the same blocks on every rank.
    """
    device = causal_lm.device
    data = scoring.data
    loader, done = missing_dataloader(scoring.blocks, store.known, data.block_size, data.batching)
    recorder = EntropyRecorder(store)
    title = f"Scoring {scoring.name}"
    for batch in track(loader, title, done + len(loader), completed=done, unit="batches"):
        on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        outputs = score_clean(causal_lm, on_device)
        recorder.record(on_device["block_id"], getattr(outputs, scoring.quantity))
    recorder.flush()
    store.merge_ranks()


def score_split(
    split: str, data: TextDataModule, scorer: CausalLM, cache_dir: str | Path
) -> tuple[EntropyStore, Path]:
    """Return the entropies of a split under a frozen model, as :func:`score_blocks` does.

    Args:
        split: any of the data module.
        data: the data module, set up.
        scorer: the model, on the device where it is to run.
        cache_dir: folder of the cache.
    """
    return score_blocks(Scoring(data, data.blocks(split), split), scorer, cache_dir)


def score_blocks(
    scoring: Scoring, scorer: CausalLM, cache_dir: str | Path
) -> tuple[EntropyStore, Path]:
    """Return what a frozen model gives to the tokens of blocks, from the cache if it is there.

    A scoring that was killed goes on where it stood. To be called within the precision context of
    the run, on every rank.

    Args:
        scoring: what is scored.
        scorer: the model, on the device where it is to run.
        cache_dir: folder of the cache.

    Returns:
        The values, and the file of the cache that holds them.
    """
    blocks, fingerprint = scoring.blocks, scoring.blocks.fingerprint()
    path = cached_store_path(cache_dir, scorer, fingerprint, scoring.quantity)
    finished = _finished(path, fingerprint)
    if all_agree(finished is not None and bool(finished.known.all())):
        assert finished is not None, "it is on every rank"
        return finished, path
    scores = PartialScores(path, len(blocks), blocks.block_size, fingerprint)
    scores.store.merge_ranks()
    score_missing(scorer, scoring, scores.store)
    scores.finish(is_first())
    wait_for_all()
    # Ranks on other machines may not see the file.
    return EntropyStore.load(path, fingerprint) if path.exists() else scores.store, path


def _finished(path: Path, fingerprint: str) -> EntropyStore | None:
    if not path.exists():
        return None
    try:
        return EntropyStore.load(path, fingerprint)
    except ValueError as error:
        # Nobody has named this file: it can be written anew.
        rank_zero_warn(f"the cache holds a damaged file, which is scored again: {error}")
        return None


def cached_store_path(
    cache_dir: str | Path, causal_lm: CausalLM, fingerprint: str, quantity: str = "entropy"
) -> Path:
    """Return where the entropies, or the losses, of some blocks under a model are cached.

    The name depends on the precision in which the model would run now.
    """
    settings = causal_lm.unwrapped.config.to_dict()
    kept = {name: value for name, value in settings.items() if name not in IRRELEVANT_SETTINGS}
    digest = hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=16)
    digest.update(weights_fingerprint(causal_lm).encode())
    digest.update(_precision(causal_lm.device.type).encode())
    name = f"{fingerprint[:32]}-{digest.hexdigest()}.safetensors"
    return entropy_folder(cache_dir).with_name(quantity) / name


def entropy_folder(cache_dir: str | Path) -> Path:
    """Return the folder of the cache in which entropies are kept."""
    return Path(cache_dir).expanduser() / "entropy"


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Return a hash of the weights, 32 hex digits.

    >>> len(weights_fingerprint(torch.nn.Linear(1, 1)))
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole: Any = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _precision(device_type: str) -> str:
    if not torch.is_autocast_enabled(device_type):
        return "as the weights"
    return str(torch.get_autocast_dtype(device_type))
