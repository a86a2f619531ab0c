"""The loss head alone: time, memory, operations, and agreement with float64."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import head
from benchmarks.gpu_campaign.cases import Row
from benchmarks.harness import prepare
from benchmarks.memory import gpu_peak
from lit_entrodrop.model.head import HeadOutputs


class Exact(NamedTuple):
    """Results in float64: of the first tokens, and of some words of the vocabulary.

    Args:
        nll: Negative log-likelihood ``[S]``, in nats.
        entropy: Entropy ``[S]``, in nats.
        hidden_gradient: Gradient of the summed loss ``[S, D]``.
        words: Their ids ``[W]``.
        weight_gradient: Gradient of the summed loss, over all tokens ``[W, D]``.
    """

    nll: Tensor
    entropy: Tensor
    hidden_gradient: Tensor
    words: Tensor
    weight_gradient: Tensor


def measure_head(
    vocab_size: int,
    tokens: int,
    dimensions: int,
    dtype: str,
    sample: int,
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """Measure every head at one vocabulary size.

    Args:
        vocab_size: Vocabulary size V.
        tokens: Number of tokens N.
        dimensions: Hidden size D.
        dtype: Data type of hidden states and weight.
        sample: Number of tokens that are compared with float64.
        rounds: Number of timed rounds.
        device: Device, ``cuda`` or ``cpu``.
    """
    prepare(torch.get_num_threads(), device)
    inputs = head.draw(tokens, dimensions, vocab_size, device, dtype)
    exact = in_float64(inputs, sample)
    rows: dict[str, Row] = {}
    for name, case in head.available(device).items():
        try:
            rows[name] = run_once(case, inputs, exact, device)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            yield {"head": name, "status": "failed", "error": f"{type(error).__name__}: {error}"}
        inputs[0].grad = inputs[1].grad = None
    seconds = head.measure(inputs, rounds, device, rows)
    for name, row in rows.items():
        times = head.describe(name, seconds)
        # The counter does not know the operation of PyTorch's own fused loss.
        tflops = row["flops"] and row["flops"] / times["ms"] / 1e9
        yield {"vocab_size": vocab_size, **times, **row, "tflops": tflops}
    for name, reason in head.missing(device).items():
        yield {"head": name, "status": "skipped", "reason": reason}


def run_once(
    case: Callable[..., HeadOutputs | None], inputs: head.Inputs, exact: Exact, device: str
) -> Row:
    """Return the peak memory of a head, its operations and its errors."""
    # The first call may choose a kernel by timing it, which takes memory too.
    with FlopCounterMode(display=False) as counter:
        case(*inputs)
    inputs[0].grad = inputs[1].grad = None
    with gpu_peak(device) as peak:
        outputs = case(*inputs)
    errors = compare_with(exact, inputs, outputs)
    return {"peak_gib": peak.extra_gib, "flops": counter.get_total_flops() or None, **errors}


@torch.no_grad()
def in_float64(inputs: head.Inputs, sample: int, chunk: int = 256) -> Exact:
    """Compute a sample of the results in float64, from the logits of all tokens in chunks."""
    hidden, labels = inputs[0].double(), inputs[2]
    weight = inputs[1].double()
    log_sums = torch.cat([(rows @ weight.T).logsumexp(-1) for rows in hidden.split(chunk)])
    first, own = hidden[:sample] @ weight.T, labels[:sample]
    log_sum = log_sums[:sample]
    probability = (first - log_sum[:, None]).exp()
    words = labels[:sample].unique()
    slope = (hidden @ weight[words].T - log_sums[:, None]).exp()
    slope -= (labels[:, None] == words).double()
    return Exact(
        log_sum - first.gather(1, own[:, None])[:, 0],
        log_sum - (probability * first).sum(-1),
        probability @ weight - weight[own],
        words,
        slope.T @ hidden,
    )


def compare_with(exact: Exact, inputs: head.Inputs, outputs: HeadOutputs | None) -> Row:
    """Return errors: the largest of loss and entropy in nats, relative ones of gradients."""
    errors: Row = {}
    if outputs is not None:
        for name in ("nll", "entropy"):
            known = getattr(exact, name)
            off = getattr(outputs, name)[: len(known)].double() - known
            errors[f"{name}_error"] = off.abs().max().item()
    hidden, weight = (each.grad for each in inputs[:2])
    if hidden is not None and weight is not None:
        pairs = {
            "hidden": (hidden[: len(exact.nll)], exact.hidden_gradient),
            "weight": (weight[exact.words], exact.weight_gradient),
        }
        for name, (found, known) in pairs.items():
            off = (found.double() - known).norm() / known.norm()
            errors[f"{name}_gradient_error"] = off.item() if off.isfinite() else math.inf
    return errors
