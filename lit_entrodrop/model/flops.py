"""Training operations per token, and peak operations per second of a device."""

import re

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES
from lit_entrodrop.model.hardware import HARDWARE
from lit_entrodrop.model.sizes import sizes_of


def training_flops_per_token(causal_lm: CausalLM) -> int:
    """Return the operations of forward and backward for one token, without attention scores.

    4·N + 2·M for N weights in matrix products, M of them trained: 2·N for the forward pass, 2·N
    for the gradient of the activations, 2·M for the gradient of the weights. Full fine-tuning takes
    6·N (Kaplan et al., 2020, section 2.1). An embedding look-up takes none.

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
    """Return the peak of a device in dense operations per second, or None if it is unknown.

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
    """Return the peak of a GPU in dense bf16 operations per second, or None if it is unknown.

    Lightning 2.6 includes sparsity for some GPUs, and treats an L40S as an L4.

    >>> peak_of("NVIDIA H200") / 1e12
    989.0
    >>> peak_of("NVIDIA H100 PCIe") is None
    True
    """
    words = set(re.split(r"[\s-]+", device_name.lower().replace("rtx ", "rtx")))
    # These variants run at lower clocks than the GPU of the same name.
    if words & {"laptop", "nvl"} or {"h100", "pcie"} <= words:
        return None
    fitting = (each for name, each in HARDWARE.items() if set(name.split("-")) <= words)
    return next((hardware.peak_flops for hardware in fitting), None)
