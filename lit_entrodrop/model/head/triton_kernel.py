"""Row kernel in Triton, in place; same functions as :mod:`~lit_entrodrop.model.head.torch_kernel`.

One kernel reads the logits for the statistics; another reads them and overwrites them with their
gradient.

A row of logits z is streamed once. Of its part so far, the kernel keeps the maximum m,
s = Σ e^(z−m) and t = Σ e^(z−m)(z−m). A new maximum m' rescales them, t ← e^(m−m')(t + (m−m')s)
and s ← e^(m−m')s, and

    logsumexp = m + ln s,   nll = (m − z_label) + ln s,   H = ln s − t/s.

C rows in a chunk, V vocabulary size.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.model.head.torch_kernel import RowGradients, RowStatistics, blank_statistics
from regularizers.functional import IGNORE_INDEX

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    triton, constexpr = None, object

IN_PLACE = True
LARGEST_BLOCK = 4096
LOGITS_PER_WARP = 512


def obstacle(device: torch.device | str) -> str | None:
    """Return why Triton cannot run on a device, or None if it can."""
    if triton is None:
        return "Triton is missing: pip install triton (Linux on NVIDIA or AMD)"
    if torch.device(device).type == "cuda":
        return None
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"Triton needs a GPU, got device {device} (or TRITON_INTERPRET=1, to debug)"


def scratch(logits: Tensor) -> list[Tensor]:
    """Return no memory, because the kernels work in place."""
    return []


def evaluate(
    logits: Tensor, labels: Tensor, scratch: Sequence[Tensor] = ()
) -> tuple[RowStatistics, Tensor]:
    """Return the statistics of each row in fp32, and the logits.

    Args:
        logits: Logits ``[C, V]``, fp32, bf16 or fp16, contiguous within a row.
        labels: Labels ``[C]`` int64; -100 is ignored. Others outside the vocabulary get an nll of
            NaN.
        scratch: Not used.
    """
    assert logits.dtype != torch.float64, "fp64 needs the PyTorch kernel"
    assert logits.stride(1) == 1, "rows must be contiguous"
    count, vocabulary_size = logits.shape
    statistics = blank_statistics(count, torch.float32, logits.device)
    if count:
        block, warps = _block_and_warps(vocabulary_size)
        with torch.cuda.device_of(logits):
            _evaluate_row[(count,)](
                logits,
                logits.stride(0),
                labels.contiguous(),
                *statistics,
                VOCABULARY_SIZE=vocabulary_size,
                IGNORED=IGNORE_INDEX,
                BLOCK=block,
                num_warps=warps,
            )
    return statistics, logits


def slope(
    state: Tensor, labels: Tensor, statistics: RowStatistics, gradients: RowGradients
) -> Tensor:
    """Return the gradient with respect to the logits, which it overwrites.

    :func:`lit_entrodrop.model.head.torch_kernel.slope` documents the equations.
    """
    count, vocabulary_size = state.shape
    if count:
        block, warps = _block_and_warps(vocabulary_size)
        # The gradient of a sum is expanded, with a stride of 0. An absent one is not read.
        present = [gradients.nll if given is None else given for given in gradients]
        with torch.cuda.device_of(state):
            _slope_block[(count, triton.cdiv(vocabulary_size, block))](
                state,
                state.stride(0),
                vocabulary_size,
                labels.contiguous(),
                statistics.logsumexp,
                statistics.entropy,
                *(gradient.contiguous() for gradient in present),
                IGNORED=IGNORE_INDEX,
                HAS_LOGSUMEXP=gradients.logsumexp is not None,
                HAS_MEAN_LOGIT=gradients.mean_logit is not None,
                HAS_ENTROPY=gradients.entropy is not None,
                BLOCK=block,
                num_warps=warps,
            )
    return state


def _block_and_warps(vocabulary_size: int) -> tuple[int, int]:
    block = min(max(triton.next_power_of_2(vocabulary_size), LOGITS_PER_WARP), LARGEST_BLOCK)
    return block, block // LOGITS_PER_WARP


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _evaluate_row(
    logits,
    stride,
    labels,
    nll,
    entropy,
    logsumexp,
    mean_logit,
    correct,
    VOCABULARY_SIZE: constexpr,
    IGNORED: constexpr,
    BLOCK: constexpr,
):
    # A chunk may contain more than 2³¹ logits.
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    lanes = tl.arange(0, BLOCK)
    # The start is finite, because −∞ − (−∞) is NaN.
    highest = -1e30
    exponentials = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    # In Triton 3.6, the interpreter cannot count up to an argument under NumPy 2.4.
    for start in range(0, VOCABULARY_SIZE, BLOCK):
        inside = start + lanes < VOCABULARY_SIZE
        z = tl.load(logits + start + lanes, mask=inside, other=float("-inf")).to(tl.float32)
        total += tl.where(inside, z, 0.0)
        new_highest = tl.maximum(highest, tl.max(z, 0))
        drop = highest - new_highest
        rescale = tl.exp(drop)
        weighted = rescale * (weighted + drop * exponentials)
        exponentials = rescale * exponentials
        highest = new_highest
        exponential = tl.exp(z - highest)
        exponentials += exponential
        # 0 · −∞ is NaN, but a token of probability 0 contributes nothing.
        weighted += exponential * tl.where(exponential > 0.0, z - highest, 0.0)
    exponential_sum = tl.sum(exponentials, 0)
    log_sum = tl.log(exponential_sum)
    expected = tl.sum(weighted, 0) / exponential_sum
    label = tl.load(labels + row)
    counted = label != IGNORED
    known = (label >= 0) & (label < VOCABULARY_SIZE)
    label_logit = tl.load(logits + label, mask=known, other=float("nan")).to(tl.float32)
    tl.store(nll + row, tl.where(counted, (highest - label_logit) + log_sum, 0.0))
    tl.store(entropy + row, tl.maximum(log_sum - expected, 0.0, tl.PropagateNan.ALL))
    tl.store(logsumexp + row, highest + log_sum)
    tl.store(mean_logit + row, tl.sum(total, 0) / VOCABULARY_SIZE)
    tl.store(correct + row, counted & (label_logit >= highest))


@_jit
def _slope_block(
    state,
    stride,
    vocabulary_size,
    labels,
    logsumexp,
    entropy,
    nll_gradient,
    logsumexp_gradient,
    mean_logit_gradient,
    entropy_gradient,
    IGNORED: constexpr,
    HAS_LOGSUMEXP: constexpr,
    HAS_MEAN_LOGIT: constexpr,
    HAS_ENTROPY: constexpr,
    BLOCK: constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    places = state + row * stride + token
    inside = token < vocabulary_size
    z = tl.load(places, mask=inside, other=float("-inf")).to(tl.float32)
    log_probability = z - tl.load(logsumexp + row)
    probability = tl.exp(log_probability)
    label = tl.load(labels + row)
    nll = tl.where(label != IGNORED, tl.load(nll_gradient + row), 0.0)
    factor = nll
    if HAS_LOGSUMEXP:
        factor += tl.load(logsumexp_gradient + row)
    result = probability * factor
    if HAS_ENTROPY:
        excess = tl.where(probability > 0.0, log_probability + tl.load(entropy + row), 0.0)
        result -= tl.load(entropy_gradient + row) * probability * excess
    if HAS_MEAN_LOGIT:
        result += tl.load(mean_logit_gradient + row) / vocabulary_size
    result -= tl.where(token == label, nll, 0.0)
    tl.store(places, result.to(state.dtype.element_ty), mask=inside)
