"""Liger's fused head, ``LigerFusedLinearScaledCrossEntropyFunction``: fused on Hopper in bf16.

N tokens, D hidden dimensions, V words.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from packaging.version import Version
from torch import Tensor

from regularizers.functional import IGNORE_INDEX

OLDEST = "0.8.3"


def obstacle(
    device: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    softcap: float | None = None,
    bias: bool = False,
    lora: bool = False,
) -> str | None:
    """Return why Liger's fused head cannot serve, or None if it can.

    Args:
        device: of the hidden states and the weight.
        dtype: of both.
        softcap: of the logits, if any.
        bias: whether the head has one.
        lora: whether the head has an adapter.
    """
    given = {"a soft cap": softcap is not None, "a bias": bias, "a LoRA adapter": lora}
    if refused := [name for name, present in given.items() if present]:
        return f"Liger's fused head does not take {' or '.join(refused)}"
    return _missing_package() or _unsuitable(torch.device(device), dtype)


def linear_ce_entropy_liger(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute loss and entropy of ``hidden @ weight.T`` by Liger.

    On GPUs of compute capability 9.0 no logits are stored in the forward pass, and the backward
    pass computes them again 1024 tokens at a time. Elsewhere, CPU included, Liger itself runs a
    PyTorch loop over 512 tokens; see :func:`obstacle`.

    What it cannot give: the logsumexp and whatever is made of it (z-loss), the mean logit (label
    smoothing), whether the label is the likeliest word, a gradient through the entropy.

    Liger looks for labels outside the vocabulary, for which the host waits at each call; on Hopper
    the environment variable ``LIGER_SCALED_CE_SM90_VALIDATE_TARGETS=0`` skips that.

    Args:
        hidden: ``[N, D]``; bf16 on Hopper.
        weight: ``[V, D]``, the dtype of hidden. Its gradient is computed, if not used, even when
            it is frozen, and is summed in bf16.
        labels: ``[N]`` int64, -100 is ignored.

    Returns:
        nll: ``[N]`` fp32, with gradient; 0 where the label is -100.
        entropy: ``[N]`` fp32 nats, no gradient, computed to the precision of hidden: in bf16 up to
            0.4 % off. Given for ignored labels too.

    Raises:
        ValueError: if Liger is missing.
    """
    if missing := _missing_package():
        raise ValueError(f"head: {missing}")
    if not len(hidden):
        nothing = (hidden @ weight.T).sum(-1, dtype=torch.float32)
        return nothing, nothing.detach()

    from liger_kernel.ops.fused_linear_scaled_cross_entropy import (
        LigerFusedLinearScaledCrossEntropyFunction as LigerFunction,
    )

    ignored = labels == IGNORE_INDEX
    # Liger sets the entropy of ignored labels to 0, but every token's entropy is wanted.
    nll, entropy = LigerFunction.apply(
        hidden, weight, labels.masked_fill(ignored, 0), return_entropy=True
    )
    return nll.masked_fill(ignored, 0.0), entropy.detach().float()


def _missing_package() -> str | None:
    try:
        found = version("liger-kernel")
    except PackageNotFoundError:
        return f"Liger is missing: pip install 'liger-kernel[cutedsl]>={OLDEST}'"
    if Version(found) < Version(OLDEST):
        return f"liger-kernel {found} is too old: pip install 'liger-kernel[cutedsl]>={OLDEST}'"
    return None


def _unsuitable(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return f"Liger fuses this on GPUs of compute capability 9.0 only, got device {device}"
    if dtype != torch.bfloat16:
        return f"Liger's fused head wants bf16, got {dtype}"
    if find_spec("cutlass") is None:
        return "CUTLASS is missing: pip install 'liger-kernel[cutedsl]'"
    return None
