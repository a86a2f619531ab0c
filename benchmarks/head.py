"""Time and memory of the loss head: loss and entropy of every token, forward and backward.

The cases alternate in one process, on the same random hidden states, weight and labels:

- ``gemm``: the three matrix products that every exact head needs;
- ``naive``: all logits, their cross-entropy and, separately, their entropy;
- ``naive, no entropy``: all logits and their cross-entropy, as Transformers does;
- ``ours``: the fused head with gradients in the forward pass, token weights known in advance;
- ``ours, recomputed``: the fused head that allows any function of its results; logits are
  computed twice;
- ``ours, no entropy``: the same kernel without the entropy, to measure its cost; CPU only, because
  the Triton kernel computes both at once;
- ``torch``: ``torch.nn.functional.linear_cross_entropy`` in chunks of 128 tokens, without entropy.

On a GPU, ``ours`` selects the faster of PyTorch and Triton; ``ours, PyTorch`` and ``ours, Triton``
name one.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.harness import (
    RESULTS,
    command_line,
    interleaved,
    milliseconds,
    prepare,
    ratio,
    save,
)
from benchmarks.memory import extra_memory
from lit_entrodrop.model.head import HeadOutputs, linear_ce_entropy, torch_kernel
from lit_entrodrop.model.head.kernels import Backend

Inputs = tuple[Tensor, Tensor, Tensor]
MIB = 2**20


def draw(
    tokens: int, dimensions: int, vocab_size: int, device: str = "cpu", dtype: str = "float32"
) -> Inputs:
    """Return random hidden states ``[N, D]``, weight ``[V, D]`` and labels ``[N]``."""
    options = {"device": device, "dtype": getattr(torch, dtype)}
    hidden = torch.randn(tokens, dimensions, **options).requires_grad_()
    weight = torch.randn(vocab_size, dimensions, **options).mul_(dimensions**-0.5).requires_grad_()
    return hidden, weight, torch.randint(vocab_size, (tokens,), device=device)


def gemm(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Compute the matrix products: logits, and the gradients of hidden states and weight."""
    with torch.no_grad():
        logits = hidden @ weight.T
        logits @ weight
        logits.T @ hidden


def naive(hidden: Tensor, weight: Tensor, labels: Tensor, with_entropy: bool = True) -> None:
    """Compute the loss from all logits, and the entropy without gradient."""
    logits = (hidden @ weight.T).float()
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    if with_entropy:
        with torch.no_grad():
            log_p = logits.log_softmax(-1)
            -(log_p.exp() * log_p).sum(-1)
    loss.backward()


def ours(hidden: Tensor, weight: Tensor, labels: Tensor, backend: Backend = "auto") -> HeadOutputs:
    """Run the fused head with token weights known in advance."""
    ones = torch.ones_like(labels, dtype=torch.float32)
    outputs: HeadOutputs = linear_ce_entropy(
        hidden, weight, labels, token_weight=ones, backend=backend
    )
    assert outputs.weighted_loss is not None
    outputs.weighted_loss.backward()
    return outputs


def recomputed(hidden: Tensor, weight: Tensor, labels: Tensor) -> HeadOutputs:
    """Run the fused head with a gradient for each token's loss."""
    outputs: HeadOutputs = linear_ce_entropy(hidden, weight, labels)
    outputs.nll.sum().backward()
    return outputs


def without_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Run the fused head without the operations that only the entropy needs."""
    with patch.object(torch_kernel, "_weighted", lambda shifted, _: (shifted, shifted[:, 0])):
        ours(hidden, weight, labels)


def torch_fused(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Run the fused loss of PyTorch, which computes no entropy."""
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=128)
    nn.functional.linear_cross_entropy(
        hidden, weight, labels, reduction="sum", options=options
    ).backward()


CASES: dict[str, Callable[..., HeadOutputs | None]] = {
    "gemm": gemm,
    "naive": naive,
    "naive, no entropy": partial(naive, with_entropy=False),
    "ours": ours,
    "ours, recomputed": recomputed,
    "ours, no entropy": without_entropy,
    "ours, PyTorch": partial(ours, backend="torch"),
    "ours, Triton": partial(ours, backend="triton"),
    "torch": torch_fused,
}


def missing(device: str) -> dict[str, str]:
    """Return the cases that this device or this PyTorch version does not support, with reasons."""
    found = {}
    if not hasattr(nn, "LinearCrossEntropyOptions"):
        found["torch"] = f"PyTorch {torch.__version__} has no linear_cross_entropy"
    if torch.device(device).type == "cpu":
        found |= dict.fromkeys(("ours, PyTorch", "ours, Triton"), "needs a GPU; `ours` is PyTorch")
    else:
        found["ours, no entropy"] = "the Triton kernel computes loss and entropy at once"
    return found


def available(device: str) -> dict[str, Callable[..., HeadOutputs | None]]:
    """Return the cases that this device and this PyTorch version support."""
    return {name: case for name, case in CASES.items() if name not in missing(device)}


def measure(
    inputs: Inputs, rounds: int, device: str, names: Collection[str] | None = None
) -> dict[str, list[float]]:
    """Time the alternating cases, by default all that are available."""

    def clean(case: Callable[..., object]) -> None:
        case(*inputs)
        inputs[0].grad = inputs[1].grad = None

    cases = {
        name: partial(clean, case)
        for name, case in available(device).items()
        if names is None or name in names
    }
    return interleaved(cases, rounds, device=device)


def benchmark(
    vocab_sizes: list[int] = [4096, 32768, 151936],  # noqa: B006 - jsonargparse copies it
    tokens: int = 1024,
    dimensions: int = 256,
    dtype: str = "float32",
    rounds: int = 5,
    threads: int = 2,
    device: str = "cpu",
    out: str = RESULTS,
    name: str = "head",
) -> None:
    """Measure time and memory of the loss head, forward and backward.

    Args:
        vocab_sizes: Vocabulary sizes.
        tokens: Number of tokens in a batch.
        dimensions: Hidden size.
        dtype: Data type of hidden states and weight.
        rounds: Number of timed rounds.
        threads: Number of CPU threads; 2, because matrix products profit from them.
        device: Device, cpu or cuda.
        out: Folder for the results.
        name: File name of the results, without suffix.
    """
    settings = {**locals()}
    prepare(threads, device)
    table = []
    for size in vocab_sizes:
        shape = (tokens, dimensions, size, device, dtype)
        seconds = measure(draw(*shape), rounds, device)
        for case in seconds:
            memory = extra_memory(CASES[case], *shape, setup=draw, device=device)
            row = {"vocab_size": size, **describe(case, seconds), "extra_mib": memory / MIB}
            table.append(row)
    save(name, settings, table, out)


def describe(case: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the times of a case and their ratios to the naive head and the bare products."""
    to_naive, to_gemm = (ratio(seconds[case], seconds[other]) for other in ("naive", "gemm"))
    return {
        "head": case,
        **milliseconds(seconds[case]),
        "to_naive": to_naive["median"],
        "to_naive_iqr": to_naive["iqr"],
        "to_gemm": to_gemm["median"],
        "to_gemm_iqr": to_gemm["iqr"],
        "rounds": to_naive["rounds"],
    }


if __name__ == "__main__":
    command_line(benchmark)
