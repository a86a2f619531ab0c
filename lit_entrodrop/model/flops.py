"""Floating-point operations: what a token takes in training, and what a device can do."""

import re

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES
from lit_entrodrop.model.hardware import HARDWARE
from lit_entrodrop.model.sizes import sizes_of


def training_flops_per_token(causal_lm: CausalLM) -> int:
    """Return the operations of forward and backward for one token, attention's scores left out.

    4·N + 2·M, for N weights of matrix products, of which M are trained: 2·N forward, 2·N for the
    gradient of the activations, 2·M for that of the weights. For full fine-tuning it is 6·N (Kaplan
    et al., 2020, section 2.1). Looking up an embedding takes none.

    Args:
        causal_lm: may be without weights, on the meta device.

    >>> from lit_entrodrop.model.building import build_on_meta
    >>> from lit_entrodrop.model.config import LMConfig
    >>> tiny = build_on_meta(LMConfig())
    >>> training_flops_per_token(tiny) == 6 * sum(weight.numel() for weight in tiny.parameters())
    True
    """
    sizes = sizes_of(causal_lm)
    embedding = list(causal_lm.unwrapped.get_input_embeddings().parameters())
    head = set(causal_lm.unwrapped.get_output_embeddings().parameters())
    looked_up = [weight for weight in embedding if weight not in head]
    used = sizes.parameters - sum(weight.numel() for weight in looked_up)
    trained = sizes.trainable - sum(w.numel() for w in looked_up if w.requires_grad)
    return 4 * used + 2 * trained


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Return the dense operations per second that a device can do at most, if they are known.

    Args:
        device: where the model runs.
        precision: as in ``trainer.precision``.

    >>> peak_flops(torch.device("cpu"), "bf16-mixed") is None
    True
    """
    if device.type == "cpu":
        return None
    dtype = AUTOCAST_DTYPES.get(precision, torch.float32)
    if device.type == "cuda" and dtype in AUTOCAST_DTYPES.values():
        known = peak_of(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    return get_available_flops(device, dtype)


def peak_of(device_name: str) -> float | None:
    """Return the dense bf16 operations per second of a GPU that ``plan`` knows.

    Lightning 2.6 counts sparsity for some and takes an L40S for an L4.

    Args:
        device_name: as the driver tells it.

    >>> peak_of("NVIDIA H200") / 1e12
    989.0
    >>> peak_of("NVIDIA H100 PCIe") is None
    True
    """
    words = set(re.split(r"[\s-]+", device_name.lower().replace("rtx ", "rtx")))
    # The makers clock these lower than what goes by the same name.
    if words & {"laptop", "nvl"} or {"h100", "pcie"} <= words:
        return None
    fitting = (each for name, each in HARDWARE.items() if set(name.split("-")) <= words)
    return next((hardware.peak_flops for hardware in fitting), None)
