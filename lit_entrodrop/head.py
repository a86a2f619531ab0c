"""Linear head, cross-entropy and entropy in one pass, without holding the logits of all tokens.

Per row of logits z with m = max z: s = Σ e^(z−m), t = Σ e^(z−m)(z−m), and then

    logsumexp = m + ln s,   nll = logsumexp − z_label,   H = ln s − t/s.

Shifting t by m keeps H free of cancellation.

N tokens, D hidden dimensions, V words.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX


class HeadOutputs(NamedTuple):
    """What the head tells about each token; all ``[N]``.

    Args:
        nll: fp32, −ln p(label), with gradient; 0 where the label is -100.
        entropy: fp32 nats, full vocabulary, no gradient; given for ignored labels too.
        logsumexp: fp32, with gradient.
        correct: bool, whether no word has a higher logit than the label.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    correct: Tensor


def linear_ce_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk_size: int | None = None
) -> HeadOutputs:
    """Compute loss and entropy of ``hidden @ weight.T`` over chunks of tokens.

    If there are several chunks, the backward pass computes the logits of each once more, so peak
    memory is about ``3 · chunk_size · V`` numbers, and any function of the results may follow.

    Args:
        hidden: ``[N, D]``, any floating dtype.
        weight: ``[V, D]``, as in ``nn.Linear``; no bias.
        labels: ``[N]`` int64, -100 is ignored.
        chunk_size: tokens per chunk; by default such that a chunk of logits takes about 128 MiB on
            CPU and 512 MiB elsewhere.

    Returns:
        The outputs of each token; results are fp32 whatever the inputs are (fp64 for fp64).

    >>> outputs = linear_ce_entropy(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3]))
    >>> round(outputs.nll.item(), 4), round(outputs.entropy.item(), 4)  # ln 4, both
    (1.3863, 1.3863)
    """
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if chunk_size is None:
        budget = 2**25 if device_type == "cpu" else 2**27
        chunk_size = max(16, budget // len(weight))
    with torch.autocast(device_type, enabled=False):
        outputs = _LinearCrossEntropy.apply(hidden, weight, labels, chunk_size)  # type: ignore[no-untyped-call]
        return HeadOutputs(*outputs)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk_size: int
    ) -> tuple[Tensor, ...]:
        chunks, softmax = [], None
        for start in range(0, max(len(hidden), 1), chunk_size):
            rows = slice(start, start + chunk_size)
            outputs, softmax = _evaluate_rows(_logits(hidden[rows], weight), labels[rows])
            chunks.append(outputs)
        nll, entropy, logsumexp, correct = map(torch.cat, zip(*chunks, strict=True))
        if len(chunks) > 1:
            # Only a single chunk fits the memory budget until the backward pass.
            softmax = None
        ctx.save_for_backward(hidden, weight, labels, logsumexp, softmax)
        ctx.chunk_size = chunk_size
        ctx.mark_non_differentiable(entropy, correct)
        return nll, entropy, logsumexp, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels, logsumexp, softmax = ctx.saved_tensors
        nll_gradient = gradients[0].masked_fill(labels == IGNORE_INDEX, 0.0)
        row_gradient = nll_gradient + gradients[2]
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), ctx.chunk_size):
            rows = slice(start, start + ctx.chunk_size)
            # d nll / d logits = softmax − onehot(label);  d logsumexp / d logits = softmax
            if softmax is None:
                slope = (_logits(hidden[rows], weight) - logsumexp[rows, None]).exp_()
                slope *= row_gradient[rows, None]
            else:
                slope = softmax * row_gradient[rows, None]
            slope.scatter_add_(1, labels[rows].clamp(min=0)[:, None], -nll_gradient[rows, None])
            slope = slope.to(weight.dtype)
            hidden_gradient[rows] = slope @ weight
            if weight_gradient is not None:
                weight_gradient.addmm_(slope.T, hidden[rows])
        return hidden_gradient, weight_gradient, None, None


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    logits = hidden @ weight.T
    return logits if logits.dtype == torch.float64 else logits.float()


def _evaluate_rows(logits: Tensor, labels: Tensor) -> tuple[HeadOutputs, Tensor]:
    """Return the outputs of some rows and their softmax; overwrites the logits, to save memory."""
    highest = logits.amax(-1, keepdim=True)
    shifted = logits.sub_(highest)
    counted = labels != IGNORE_INDEX
    label_logit = shifted.gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
    exponentials = shifted.exp()
    total = exponentials.sum(-1)
    entropy = total.log() - shifted.mul_(exponentials).sum(-1) / total
    outputs = HeadOutputs(
        nll=(total.log() - label_logit).masked_fill(~counted, 0.0),
        entropy=entropy,
        logsumexp=highest.squeeze(-1) + total.log(),
        correct=counted & (label_logit >= 0),
    )
    return outputs, exponentials.div_(total[:, None])
