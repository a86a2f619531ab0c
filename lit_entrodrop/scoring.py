"""Score a corpus with a frozen model: the entropy of every token on clean input."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lit_entrodrop.causal_lm import CausalLM
from lit_entrodrop.data.sampling import Batch
from lit_entrodrop.entropy_store import EntropyStore
from regularizers import Outputs

# They tell where a model comes from, not what it computes.
IRRELEVANT_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version")


def forward_clean(causal_lm: CausalLM, batch: Batch, with_logits: bool = False) -> Outputs:
    """Run a model on the uncorrupted tokens of a batch."""
    outputs: Outputs = causal_lm(
        batch["input_ids"],
        batch["labels"],
        batch["position_ids"],
        batch["document_ids"],
        with_logits=with_logits,
    )
    return outputs


@torch.no_grad()
def score_clean(causal_lm: CausalLM, batch: Batch, with_logits: bool = False) -> Outputs:
    """Run a model on the uncorrupted tokens of a batch in eval mode, without gradient."""
    was_training = causal_lm.training
    causal_lm.eval()
    try:
        return forward_clean(causal_lm, batch, with_logits)
    finally:
        causal_lm.train(was_training)


def score_blocks(
    causal_lm: CausalLM, loader: Iterable[Any], store: EntropyStore, description: str
) -> EntropyStore:
    """Fill a store with the entropies that a frozen model gives to clean input.

    Args:
        causal_lm: the model, on the device where it is to run.
        loader: yields every block of the split once over all ranks.
        store: where the entropies go.
        description: title of the progress bar.

    Returns:
        The store, complete on every rank.
    """
    device = next(causal_lm.parameters()).device
    store.to(device)
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        on_device = {name: tensor.to(device) for name, tensor in batch.items()}
        store.record(on_device["block_id"], score_clean(causal_lm, on_device).entropy)
    store.merge_ranks()
    return store


def cached_store_path(cache_dir: str | Path, causal_lm: CausalLM, fingerprint: str) -> Path:
    """Return where the entropies of some blocks under a model are cached."""
    settings = causal_lm.unwrapped.config.to_dict()
    kept = {name: value for name, value in settings.items() if name not in IRRELEVANT_SETTINGS}
    digest = hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=16)
    digest.update(weights_fingerprint(causal_lm).encode())
    name = f"{fingerprint[:32]}-{digest.hexdigest()}.safetensors"
    return Path(cache_dir).expanduser() / "entropy" / name


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Return a hash of the weights, 32 hex digits.

    >>> len(weights_fingerprint(torch.nn.Linear(1, 1)))
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
