"""Row kernel in plain PyTorch: statistics of rows of logits, and the gradient of the logits.

Per row of logits z with m = max z: s = Σ e^(z−m), and then, with p = softmax(z),

    logsumexp = m + ln s,   nll = m − z_label + ln s,   H = ln s − Σ p (z − m).

C rows in a chunk, V vocabulary size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX

# Whether a chunk is evaluated in place; otherwise it is evaluated block by block.
IN_PLACE = False

_SIZING_DEVICE: ContextVar[torch.device | None] = ContextVar("sizing_device", default=None)


class RowStatistics(NamedTuple):
    """Statistics of each row; all ``[C]``, fp32 (fp64 for fp64 logits).

    Args:
        nll: −ln p(label); 0 where the label is -100.
        entropy: Entropy in nats, over the full vocabulary; also computed for ignored labels.
        logsumexp: ln Σ_v exp z_v.
        mean_logit: Σ_v z_v / V.
        correct: Bool, whether no token has a higher logit than the label.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    mean_logit: Tensor
    correct: Tensor


def blank_statistics(count: int, dtype: torch.dtype, device: torch.device) -> RowStatistics:
    """Allocate uninitialized statistics of ``count`` rows."""
    dtypes = [dtype] * 4 + [torch.bool]
    return RowStatistics._make(torch.empty(count, dtype=each, device=device) for each in dtypes)


class RowGradients(NamedTuple):
    """Gradient of a scalar with respect to each statistic, ``[C]`` each; None is zero."""

    nll: Tensor
    logsumexp: Tensor | None = None
    mean_logit: Tensor | None = None
    entropy: Tensor | None = None


class TorchState(NamedTuple):
    """What :func:`slope` needs of the rows that :func:`evaluate` has seen last.

    Args:
        softmax: p = softmax(z), ``[C, V]``.
        weighted: p (z − m), ``[C, V]``, in the memory of :func:`scratch`.
        expected: Σ p (z − m), ``[C]``.
    """

    softmax: Tensor
    weighted: Tensor
    expected: Tensor


class RowKernel(Protocol):
    """A module with these functions on rows of logits; this module is one."""

    IN_PLACE: bool

    def scratch(self, logits: Tensor) -> list[Tensor]:
        """Return memory that :meth:`evaluate` may reuse for up to this number of rows."""

    def evaluate(
        self, logits: Tensor, labels: Tensor, scratch: list[Tensor]
    ) -> tuple[RowStatistics, Any]:
        """Return statistics, and the state that :meth:`slope` needs; may overwrite the logits."""

    def slope(
        self, state: Any, labels: Tensor, statistics: RowStatistics, gradients: RowGradients
    ) -> Tensor:
        """Return the gradient with respect to the logits, ``[C, V]``; overwrites the state."""


def scratch(logits: Tensor) -> list[Tensor]:
    """Return memory for :func:`evaluate`: for shifted logits, and for the softmax if 16-bit.

    Allocating memory for every block would cost a CPU more than the arithmetic of the block.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    count = 1 if dtype == logits.dtype else 2
    return [torch.empty_like(logits, dtype=dtype) for _ in range(count)]


def evaluate(
    logits: Tensor, labels: Tensor, scratch: list[Tensor]
) -> tuple[RowStatistics, TorchState]:
    """Compute the statistics of each row.

    Args:
        logits: Logits ``[C, V]``, any floating dtype; overwritten if fp32 or fp64.
        labels: Labels ``[C]`` int64; -100 is ignored.
        scratch: Memory from :func:`scratch`, for C rows or more.

    Returns:
        The statistics, and the state that :func:`slope` needs.

    >>> logits = torch.zeros(1, 4)
    >>> statistics, state = evaluate(logits, torch.tensor([2]), scratch(logits))
    >>> round(statistics.entropy.item(), 4), state.softmax  # ln 4
    (1.3863, tensor([[0.2500, 0.2500, 0.2500, 0.2500]]))
    """
    shifted, *more = (memory[: len(logits)] for memory in scratch)
    highest = logits.amax(-1).to(shifted.dtype)
    mean_logit = logits.mean(-1, dtype=shifted.dtype)
    # Shifting logits by their maximum avoids cancellation in ln s − Σ p (z − m).
    torch.sub(logits, highest[:, None], out=shifted)
    label_logit = shifted.gather(-1, _places(labels)).squeeze(-1)
    softmax = torch.softmax(shifted, -1, out=more[0] if more else logits)
    # The most likely token has p = 1/s, which never underflows.
    log_sum = -softmax.amax(-1).log()
    weighted, expected = _weighted(shifted, softmax)
    counted = labels != IGNORE_INDEX
    statistics = RowStatistics(
        nll=(log_sum - label_logit).masked_fill(~counted, 0.0),
        entropy=(log_sum - expected).clamp(min=0.0),
        logsumexp=highest + log_sum,
        mean_logit=mean_logit,
        correct=counted & (label_logit >= 0),
    )
    return statistics, TorchState(softmax, weighted, expected)


def slope(
    state: TorchState, labels: Tensor, statistics: RowStatistics, gradients: RowGradients
) -> Tensor:
    """Return the gradient with respect to the logits; overwrites the state.

    With p = softmax(z), per row: ∂nll = p − onehot, ∂logsumexp = p, ∂mean = 1/V and
    ∂H = −p (ln p + H) = p Σ p (z − m) − p (z − m).

    Args:
        state: State that :func:`evaluate` returned.
        labels: Labels ``[C]`` int64; -100 is ignored.
        statistics: Statistics that :func:`evaluate` returned.
        gradients: Gradients of the statistics.
    """
    softmax = state.softmax
    nll = gradients.nll.to(softmax.dtype).masked_fill(labels == IGNORE_INDEX, 0.0)
    total = nll if gradients.logsumexp is None else nll + gradients.logsumexp
    if gradients.entropy is None:
        result = softmax.mul_(total[:, None])
    else:
        result = softmax.mul_((total + gradients.entropy * state.expected)[:, None])
        result.addcmul_(state.weighted, gradients.entropy[:, None], value=-1)
    if gradients.mean_logit is not None:
        result.add_(gradients.mean_logit[:, None], alpha=1 / softmax.shape[1])
    return result.scatter_add_(1, _places(labels), -nll[:, None])


@contextmanager
def sized_for(device: torch.device) -> Iterator[None]:
    """Size chunks and blocks for another device than that of the tensors.

    >>> with sized_for(torch.device("cuda")):
    ...     block_rows(torch.zeros(64, 32768))
    1024
    """
    token = _SIZING_DEVICE.set(device)
    try:
        yield
    finally:
        _SIZING_DEVICE.reset(token)


def sizing_device(tensor: Tensor) -> torch.device:
    """Return the device that chunks and blocks of a tensor are sized for."""
    return _SIZING_DEVICE.get() or tensor.device


def block_rows(logits: Tensor, objective: bool = False) -> int:
    """Return the number of rows of logits that are evaluated at once.

    A block stays in a CPU's cache from one operation to the next, and keeps a GPU busy. With an
    objective, which autograd differentiates for each block, blocks on a CPU are larger.

    >>> block_rows(torch.zeros(64, 32768))
    16
    """
    on_cpu = sizing_device(logits).type == "cpu"
    size = (2**21 if objective else 2**19) if on_cpu else 2**25
    return max(1, size // logits.shape[1])


def _weighted(shifted: Tensor, softmax: Tensor) -> tuple[Tensor, Tensor]:
    # Only the entropy needs them.
    weighted = shifted.mul_(softmax)
    return weighted, weighted.sum(-1)


def _places(labels: Tensor) -> Tensor:
    # Other labels outside the vocabulary must still raise.
    return labels.masked_fill(labels == IGNORE_INDEX, 0)[:, None]
