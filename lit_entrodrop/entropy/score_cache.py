"""File names of cached scores, by content of blocks and model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lit_entrodrop.model.causal_lm import CausalLM

# These settings describe the origin of a model and do not change its outputs.
IRRELEVANT_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version")


def cached_store_path(
    cache_dir: str | Path, causal_lm: CausalLM, fingerprint: str, quantity: str = "entropy"
) -> Path:
    """Return the path at which the scores of some blocks under a model are cached.

    The name depends on the precision in which the model would run in the current context.
    """
    settings = causal_lm.unwrapped.config.to_dict()
    kept = {name: value for name, value in settings.items() if name not in IRRELEVANT_SETTINGS}
    digest = hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=16)
    digest.update(weights_fingerprint(causal_lm).encode())
    digest.update(_precision(causal_lm.device.type).encode())
    name = f"{fingerprint[:32]}-{digest.hexdigest()}.safetensors"
    return entropy_folder(cache_dir).with_name(quantity) / name


def entropy_folder(cache_dir: str | Path) -> Path:
    """Return the folder of cached entropies."""
    return Path(cache_dir).expanduser() / "entropy"


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Hash the weights of a module, 32 hexadecimal digits.

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
    # Part of the file name: cached scores stay valid only while these strings do.
    if not torch.is_autocast_enabled(device_type):
        return "as the weights"
    return str(torch.get_autocast_dtype(device_type))
