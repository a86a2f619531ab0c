"""What the logits of some rows tell, and the gradient back to them, in plain PyTorch.

Per row of logits z with m = max z: s = Σ e^(z−m), and then, with p = softmax(z),

    logsumexp = m + ln s,   nll = m − z_label + ln s,   H = ln s − Σ p (z − m).

C rows in a chunk, V words.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX

# Whether a chunk needs no memory but its own; else it is taken block by block.
IN_PLACE = False

_SIZING_DEVICE: ContextVar[torch.device | None] = ContextVar("sizing_device", default=None)


class RowStatistics(NamedTuple):
    """What the head tells about each row; all ``[C]``, fp32 (fp64 for fp64 logits).

    Args:
        nll: −ln p(label); 0 where the label is -100.
        entropy: nats, full vocabulary; given for ignored labels too.
        logsumexp: ln Σ_v exp z_v.
        mean_logit: Σ_v z_v / V, of which label smoothing is made.
        correct: bool, whether no word has a higher logit than the label.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    mean_logit: Tensor
    correct: Tensor


def blank_statistics(count: int, dtype: torch.dtype, device: torch.device) -> RowStatistics:
    """Return statistics of some rows that are yet to be filled in."""
    dtypes = [dtype] * 4 + [torch.bool]
    return RowStatistics._make(torch.empty(count, dtype=each, device=device) for each in dtypes)


class RowGradients(NamedTuple):
    """Gradient of a scalar with respect to each statistic, ``[C]`` each; None is zero."""

    nll: Tensor
    logsumexp: Tensor | None = None
    mean_logit: Tensor | None = None
    entropy: Tensor | None = None


class RowKernel(Protocol):
    """A pair of functions on rows of logits; this module is one."""

    IN_PLACE: bool

    def scratch(self, logits: Tensor) -> list[Tensor]:
        """Return memory in which :meth:`evaluate` may work on up to as many rows, ever again."""

    def evaluate(
        self, logits: Tensor, labels: Tensor, scratch: list[Tensor]
    ) -> tuple[RowStatistics, Tensor]:
        """Return the statistics, and what :meth:`slope` needs; may overwrite the logits."""

    def slope(
        self, state: Tensor, labels: Tensor, statistics: RowStatistics, gradients: RowGradients
    ) -> Tensor:
        """Return the gradient with respect to the logits, ``[C, V]``; overwrites the state."""


def scratch(logits: Tensor) -> list[Tensor]:
    """Return memory for :func:`evaluate`: for shifted logits and, of 16-bit ones, for the softmax.

    Fresh memory for every block would cost a CPU more than the arithmetic in it.

    >>> len(scratch(torch.zeros(2, 3))), len(scratch(torch.zeros(2, 3, dtype=torch.bfloat16)))
    (1, 2)
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    count = 1 if dtype == logits.dtype else 2
    return [torch.empty_like(logits, dtype=dtype) for _ in range(count)]


def evaluate(logits: Tensor, labels: Tensor, scratch: list[Tensor]) -> tuple[RowStatistics, Tensor]:
    """Compute the statistics of each row.

    Args:
        logits: ``[C, V]``, any floating dtype; overwritten if it is fp32 or fp64.
        labels: ``[C]`` int64, -100 is ignored.
        scratch: of :func:`scratch`, for C rows or more.

    Returns:
        The statistics, and the softmax of the logits, ``[C, V]``.

    >>> logits = torch.zeros(1, 4)
    >>> statistics, softmax = evaluate(logits, torch.tensor([2]), scratch(logits))
    >>> round(statistics.entropy.item(), 4), softmax  # ln 4
    (1.3863, tensor([[0.2500, 0.2500, 0.2500, 0.2500]]))
    """
    shifted, *more = (memory[: len(logits)] for memory in scratch)
    highest = logits.amax(-1).to(shifted.dtype)
    mean_logit = logits.mean(-1, dtype=shifted.dtype)
    # Logits shifted by their maximum keep ln s − Σ p (z − m) free of cancellation.
    torch.sub(logits, highest[:, None], out=shifted)
    label_logit = shifted.gather(-1, _places(labels)).squeeze(-1)
    softmax = torch.softmax(shifted, -1, out=more[0] if more else logits)
    # The likeliest word has p = 1/s, which never underflows.
    log_sum = -softmax.amax(-1).log()
    counted = labels != IGNORE_INDEX
    statistics = RowStatistics(
        nll=(log_sum - label_logit).masked_fill(~counted, 0.0),
        entropy=_entropy(log_sum, shifted, softmax),
        logsumexp=highest + log_sum,
        mean_logit=mean_logit,
        correct=counted & (label_logit >= 0),
    )
    return statistics, softmax


def slope(
    state: Tensor, labels: Tensor, statistics: RowStatistics, gradients: RowGradients
) -> Tensor:
    """Return the gradient with respect to the logits; overwrites the state.

    With p = softmax(z), per row: ∂nll = p − onehot, ∂logsumexp = p, ∂mean = 1/V and
    ∂H = −p (ln p + H).

    Args:
        state: ``[C, V]``, the softmax that :func:`evaluate` returned.
        labels: ``[C]`` int64, -100 is ignored.
        statistics: of :func:`evaluate`.
        gradients: of the statistics.

    Returns:
        ``[C, V]``, the dtype of the state.
    """
    nll = gradients.nll.to(state.dtype).masked_fill(labels == IGNORE_INDEX, 0.0)
    total = nll if gradients.logsumexp is None else nll + gradients.logsumexp
    if gradients.entropy is None:
        result = state.mul_(total[:, None])
    else:
        surprise = torch.xlogy(state, state).mul_(gradients.entropy[:, None])
        result = state.mul_((total - gradients.entropy * statistics.entropy)[:, None])
        result.sub_(surprise)
    if gradients.mean_logit is not None:
        result.add_(gradients.mean_logit[:, None], alpha=1 / state.shape[1])
    return result.scatter_add_(1, _places(labels), -nll[:, None])


@contextmanager
def sized_for(device: torch.device) -> Iterator[None]:
    """Let chunks and blocks be as large as on some device, wherever the tensors are.

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
    """Return the device for which the work on a tensor is cut into chunks and blocks."""
    return _SIZING_DEVICE.get() or tensor.device


def block_rows(logits: Tensor) -> int:
    """Return how many rows of logits are evaluated at once.

    A block stays in a CPU's cache from one operation to the next, and keeps a GPU busy.

    >>> block_rows(torch.zeros(64, 32768))
    16
    """
    on_cpu = sizing_device(logits).type == "cpu"
    return max(1, (2**19 if on_cpu else 2**25) // logits.shape[1])


def _places(labels: Tensor) -> Tensor:
    # Only what is ignored may point anywhere: other labels outside the vocabulary are errors.
    return labels.masked_fill(labels == IGNORE_INDEX, 0)[:, None]


def _entropy(log_sum: Tensor, shifted: Tensor, softmax: Tensor) -> Tensor:
    return (log_sum - shifted.mul_(softmax).sum(-1)).clamp(min=0.0)
