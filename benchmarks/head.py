"""The head: loss and entropy of every token, forward and backward, from hidden states.

Compared in turns in one process, on the same random hidden states, weight and labels:

- ``gemm``: the three matrix products that no exact head can do without;
- ``naive``: all logits, their cross-entropy and, apart, their entropy;
- ``naive, no entropy``: all logits and their cross-entropy, as Transformers does;
- ``ours``: gradients in the forward pass, token weights known beforehand;
- ``ours, recomputed``: any function of the results may follow, logits are computed twice;
- ``ours, no entropy``: the same kernel with the entropy left out, for the price of the entropy; on
  a CPU only, as on a GPU a Triton kernel may serve, which computes both at once;
- ``torch``: ``torch.nn.functional.linear_cross_entropy`` in chunks of 128 tokens, no entropy.
"""

from collections.abc import Callable
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
from lit_entrodrop.model.head import linear_ce_entropy, torch_kernel

Inputs = tuple[Tensor, Tensor, Tensor]
MIB = 2**20


def draw(
    tokens: int, dimensions: int, words: int, device: str = "cpu", dtype: str = "float32"
) -> Inputs:
    """Return hidden states ``[N, D]``, weight ``[V, D]`` and labels ``[N]``, all random."""
    options = {"device": device, "dtype": getattr(torch, dtype)}
    hidden = torch.randn(tokens, dimensions, **options).requires_grad_()
    weight = torch.randn(words, dimensions, **options).mul_(dimensions**-0.5).requires_grad_()
    return hidden, weight, torch.randint(words, (tokens,), device=device)


def gemm(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Multiply three times: to the logits, and back to both gradients."""
    with torch.no_grad():
        logits = hidden @ weight.T
        logits @ weight
        logits.T @ hidden


def naive(hidden: Tensor, weight: Tensor, labels: Tensor, with_entropy: bool = True) -> None:
    """Hold all logits; the entropy apart from the loss, without gradient."""
    logits = (hidden @ weight.T).float()
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    if with_entropy:
        with torch.no_grad():
            log_p = logits.log_softmax(-1)
            -(log_p.exp() * log_p).sum(-1)
    loss.backward()


def ours(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Take the fused head with weights known beforehand."""
    outputs = linear_ce_entropy(
        hidden, weight, labels, token_weight=torch.ones_like(labels, dtype=torch.float32)
    )
    assert outputs.weighted_loss is not None
    outputs.weighted_loss.backward()


def recomputed(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Take the fused head with gradients to every token's loss."""
    linear_ce_entropy(hidden, weight, labels).nll.sum().backward()


def without_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Take the fused head and skip the operations that the entropy alone needs."""
    with patch.object(torch_kernel, "_entropy", lambda log_sum, *_: log_sum):
        ours(hidden, weight, labels)


def torch_fused(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Take PyTorch's own, which gives no entropy."""
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=128)
    nn.functional.linear_cross_entropy(
        hidden, weight, labels, reduction="sum", options=options
    ).backward()


CASES: dict[str, Callable[..., None]] = {
    "gemm": gemm,
    "naive": naive,
    "naive, no entropy": partial(naive, with_entropy=False),
    "ours": ours,
    "ours, recomputed": recomputed,
    "ours, no entropy": without_entropy,
    "torch": torch_fused,
}


def available(device: str) -> dict[str, Callable[..., None]]:
    """Return the cases that can run on a device with this PyTorch."""
    missing = set()
    if not hasattr(nn, "LinearCrossEntropyOptions"):
        missing.add("torch")
    if torch.device(device).type != "cpu":
        missing.add("ours, no entropy")
    return {name: case for name, case in CASES.items() if name not in missing}


def measure(inputs: Inputs, rounds: int, device: str) -> dict[str, list[float]]:
    """Time every case in turns."""

    def clean(case: Callable[..., None]) -> None:
        case(*inputs)
        inputs[0].grad = inputs[1].grad = None

    cases = {name: partial(clean, case) for name, case in available(device).items()}
    return interleaved(cases, rounds, device=device)


def benchmark(
    words: list[int] = [4096, 32768, 151936],  # noqa: B006 - jsonargparse copies it
    tokens: int = 1024,
    dimensions: int = 256,
    dtype: str = "float32",
    rounds: int = 5,
    threads: int = 2,
    device: str = "cpu",
    out: str = RESULTS,
    name: str = "head",
) -> None:
    """Time and memory of the head, forward and backward.

    Args:
        words: vocabulary sizes.
        tokens: tokens of a batch.
        dimensions: hidden dimensions.
        dtype: of hidden states and weight.
        rounds: timed rounds.
        threads: CPU threads; 2, where most other benchmarks take 1, as products gain by it.
        device: cpu or cuda.
        out: folder of the results.
        name: of the results' file.
    """
    settings = {**locals()}
    prepare(threads, device)
    table = []
    for size in words:
        shape = (tokens, dimensions, size, device, dtype)
        seconds = measure(draw(*shape), rounds, device)
        for case in seconds:
            memory = extra_memory(CASES[case], *shape, setup=draw, device=device)
            row = {"words": size, **describe(case, seconds), "extra_mib": memory / MIB}
            table.append(row)
    save(name, settings, table, out)


def describe(case: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the times of a case, and their ratios to naive and to the bare products."""
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
