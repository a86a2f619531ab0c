"""The head as one function from hidden states to loss, entropy and other statistics.

N tokens, D hidden dimensions, V vocabulary size, R rank of a LoRA adapter.
"""

from math import isfinite

import torch
from torch import Tensor

from lit_entrodrop.model.head.autograd import KnownLoss, TokenStatistics
from lit_entrodrop.model.head.chunked import HeadSettings
from lit_entrodrop.model.head.kernels import Backend, choose_kernel
from lit_entrodrop.model.head.logits import LinearHead
from lit_entrodrop.model.head.losses import (
    HeadOutputs,
    Loss,
    Objective,
    ObjectiveLoss,
    WeightedLoss,
)
from lit_entrodrop.model.head.torch_kernel import RowStatistics, sizing_device

MIB = 2**20


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_ce_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    lora: tuple[Tensor, Tensor] | None = None,
    softcap: float | None = None,
    token_weight: Tensor | None = None,
    objective: Objective | None = None,
    entropy_gradient: bool = False,
    top_k: int | None = None,
    chunk_size: int | None = None,
    backend: Backend = "auto",
) -> HeadOutputs:
    """Compute loss and entropy of ``hidden @ weight.T`` over chunks of tokens.

    There are two ways to compute gradients:

    - With ``token_weight`` or ``objective``, gradients are computed in the forward pass and flow
      from ``weighted_loss`` only: 6NDV operations (8NDV in fp16, where gradients must not be
      rounded before the loss scale is known). The other results have no gradient.
    - With neither, gradients flow from every result except ``correct`` (and
      ``entropy``, unless ``entropy_gradient`` is set), so any function of them may follow. The
      backward pass recomputes the logits: 8NDV operations.

    Both are differentiable once: a backward pass with ``create_graph=True`` raises.

    Args:
        hidden: Hidden states ``[N, D]``, any floating dtype. If the model scales its logits, pass
            scaled hidden states.
        weight: Weight ``[V, D]``, as in ``nn.Linear``; a frozen weight saves 2NDV operations.
        labels: Labels ``[N]`` int64; -100 is ignored. For other labels outside the vocabulary,
            PyTorch raises (on a GPU, by a device-side assertion) and Triton returns an nll of NaN.
        bias: Bias ``[V]``, added to the logits.
        lora: Input ``[N, R]`` and weight ``[V, R]`` of an adapter, whose product is added.
        softcap: Soft cap: logits become ``softcap · tanh(logits / softcap)``, as in Gemma.
        token_weight: Weights ``[N]`` that are known before this pass, without gradient. Ignored
            where the label is ignored.
        objective: Differentiable function that maps a slice of the tokens and their outputs to a
            scalar, which is summed over slices. Autograd runs on the statistics of each block
            alone. It excludes ``token_weight``.
        entropy_gradient: Whether the entropy has a gradient; only without ``token_weight``.
        top_k: Number of most likely tokens for ``top_entropy``, computed in the forward pass; None
            for none.
        chunk_size: Number of tokens per chunk; None for :func:`default_chunk_size`.
        backend: ``torch``, ``triton``, or ``auto``: the one that measures faster on the device.

    Returns:
        The statistics of each token.

    Raises:
        ValueError: If shapes do not fit, or an option is unknown or excludes another.
        RuntimeError: If a label is outside the vocabulary, as above; in the backward pass, if
            ``create_graph`` is set.

    >>> outputs = linear_ce_entropy(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3]))
    >>> round(outputs.nll.item(), 4), round(outputs.entropy.item(), 4)  # ln 4, both
    (1.3863, 1.3863)
    """
    head = LinearHead(hidden, weight, bias, lora, softcap)
    check_head("linear_ce_entropy", head)
    _check_tokens(head, labels, token_weight)
    if token_weight is not None and objective is not None:
        raise ValueError(
            "objective: expected no token_weight beside it, because both determine the loss: "
            "weight the objective"
        )
    if token_weight is not None and entropy_gradient:
        raise ValueError(
            "entropy_gradient: expected no token_weight, because only weighted_loss has a gradient "
            "then: omit token_weight and weight the results yourself"
        )
    check_chunk_size(chunk_size)
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    compute_dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    wide_dtype = torch.promote_types(compute_dtype, torch.float32)
    top_entropy = None if top_k is None else hidden.new_empty(len(hidden), dtype=wide_dtype)
    settings = HeadSettings(
        kernel=choose_kernel(backend, hidden.device, len(weight), compute_dtype),
        chunk_size=chunk_size or default_chunk_size(len(weight), sizing_device(hidden)),
        compute_dtype=compute_dtype,
        softcap=softcap,
        entropy_gradient=entropy_gradient,
        needs_gradient=torch.is_grad_enabled(),
        has_objective=objective is not None,
        top_k=top_k or 0,
        top_entropy=top_entropy,
    )
    with torch.autocast(device, enabled=False):
        loss: Loss | None = None
        if objective is not None:
            loss = ObjectiveLoss(objective, entropy_gradient, top_entropy)
        elif token_weight is not None:
            loss = WeightedLoss(token_weight, labels, wide_dtype)
        outputs = _evaluate(settings, head, labels, loss)
    return outputs._replace(top_entropy=top_entropy)


def default_chunk_size(vocabulary_size: int, device: torch.device) -> int:
    """Return the default number of tokens whose logits are computed at once, a multiple of 32.

    A chunk of fp32 logits takes 32 MiB on CPU, because larger chunks do not fit into the cache.
    Elsewhere it takes 512 MiB, because smaller chunks leave the device idle. Matrix
    products of fewer than 256 rows are slow on both.

    >>> default_chunk_size(32768, torch.device("cpu"))
    256
    """
    budget = (32 if device.type == "cpu" else 512) * MIB
    return max(256, budget // (4 * vocabulary_size) // 32 * 32)


def check_chunk_size(chunk_size: int | None, name: str = "chunk_size") -> None:
    """Raise a ValueError if a chunk size is neither None nor a positive integer."""
    if chunk_size is None:
        return
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size <= 0:
        raise ValueError(f"{name}: expected an integer above 0 or None, got {chunk_size!r}")


def check_head(function: str, head: LinearHead) -> None:
    """Raise a ValueError, on behalf of a function, if shapes or dtypes of a head do not fit."""
    hidden, weight, bias, lora, softcap = head
    if not (hidden.is_floating_point() and weight.is_floating_point()):
        raise ValueError(
            f"{function}: expected hidden states and weight of a floating dtype, "
            f"got {hidden.dtype} and {weight.dtype}"
        )
    fits = hidden.ndim == weight.ndim == 2 and hidden.shape[1] == weight.shape[1]
    fits = fits and len(weight) > 0 and (bias is None or bias.shape == weight.shape[:1])
    if lora is not None:
        more, adapter = lora
        fits = fits and more.ndim == adapter.ndim == 2 and more.shape[1] == adapter.shape[1]
        fits = fits and more.shape[:1] == hidden.shape[:1] and adapter.shape[:1] == weight.shape[:1]
    if not fits:
        given = (hidden, weight, bias, *(lora or (None, None)))
        shapes = [None if tensor is None else list(tensor.shape) for tensor in given]
        raise ValueError(
            f"{function}: expected hidden [N, D], weight [V, D], bias [V], lora [N, R] and [V, R], "
            f"got {', '.join(map(str, shapes))}"
        )
    if softcap is not None and not (isfinite(softcap) and softcap > 0):
        raise ValueError(f"softcap: expected a finite number above 0 or None, got {softcap}")


def _evaluate(
    settings: HeadSettings, head: LinearHead, labels: Tensor, loss: Loss | None
) -> HeadOutputs:
    # In fp16 the loss scale must be applied before gradients are rounded.
    if loss is not None and settings.compute_dtype != torch.float16:
        value, *statistics = KnownLoss.apply(settings, labels, loss, *head.tensors)  # type: ignore[no-untyped-call]
        return HeadOutputs(*statistics)._replace(weighted_loss=value)
    statistics = TokenStatistics.apply(settings, labels, *head.tensors)  # type: ignore[no-untyped-call]
    if loss is None:
        return HeadOutputs(*statistics)
    value = loss.total(RowStatistics(*statistics))
    return HeadOutputs(*(each.detach() for each in statistics))._replace(weighted_loss=value)


def _check_tokens(head: LinearHead, labels: Tensor, token_weight: Tensor | None) -> None:
    for name, given in (("labels", labels), ("token_weight", token_weight)):
        if given is not None and given.shape != head.hidden.shape[:1]:
            raise ValueError(
                f"linear_ce_entropy: expected {name} [N] for hidden [N, D], got "
                f"{list(given.shape)} for {list(head.hidden.shape)}"
            )
