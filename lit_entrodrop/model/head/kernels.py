"""Which backend serves the head: the faster of PyTorch and Triton, unless one is named.

Liger, which is no kernel for rows, serves only if named.
"""

from functools import lru_cache, partial
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.benchmark import Timer

from lit_entrodrop.model.head import liger, rows, triton_rows
from lit_entrodrop.model.head.rows import RowGradients, RowKernel

Backend = Literal["auto", "torch", "triton", "liger"]


def check_backend(backend: str) -> None:
    """Refuse a name that is no backend's.

    Raises:
        ValueError: naming the choices.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"head: expected one of {', '.join(get_args(Backend))}, got {backend!r}")


def require_backend(
    backend: Backend,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    softcap: float | None = None,
    bias: bool = False,
    lora: bool = False,
) -> None:
    """Refuse a backend that cannot serve a head on a device.

    Args:
        backend: which.
        device: of the head.
        dtype: in which the head computes, if that is known.
        softcap: of the logits, if any.
        bias: whether the head has one.
        lora: whether the head has an adapter.

    Raises:
        ValueError: saying why.
    """
    check_backend(backend)
    obstacle = None
    if backend == "triton":
        obstacle = triton_rows.obstacle(device)
    elif backend == "liger":
        obstacle = liger.obstacle(
            device, dtype or torch.bfloat16, softcap=softcap, bias=bias, lora=lora
        )
    if obstacle:
        raise ValueError(f"head: {backend!r} cannot run here: {obstacle}; use 'auto' or 'torch'")


def choose_kernel(
    backend: Backend, device: torch.device, vocabulary_size: int, dtype: torch.dtype
) -> RowKernel:
    """Return the kernel that evaluates rows of logits.

    Args:
        backend: ``torch``, ``triton``, or else whichever of both measures faster, also for
            ``liger``.
        device: where the logits are.
        vocabulary_size: words per row, V.
        dtype: of the logits; Triton has no fp64, for which PyTorch takes its place.

    Raises:
        ValueError: if the kernel cannot run there, or is unknown.

    >>> choose_kernel("auto", torch.device("cpu"), 10, torch.float32).__name__
    'lit_entrodrop.model.head.rows'
    """
    check_backend(backend)
    if backend == "torch" or dtype == torch.float64:
        return rows
    if backend == "triton":
        require_backend(backend, device)
        return triton_rows
    if device.type == "cpu" or triton_rows.obstacle(device):
        return rows
    return _fastest(device, vocabulary_size, dtype)


@lru_cache(maxsize=16)
def _fastest(device: torch.device, vocabulary_size: int, dtype: torch.dtype) -> RowKernel:
    """Return the Triton kernel if it agrees with PyTorch on some random rows and is faster."""
    generator = torch.Generator(device).manual_seed(0)
    logits = 5 * torch.randn(256, vocabulary_size, generator=generator, device=device)
    logits = logits.to(dtype)
    labels = torch.arange(256, device=device) % vocabulary_size
    try:
        agree = _agree(_run(triton_rows, logits, labels), _run(rows, logits, labels), dtype)
    except Exception as error:  # whatever a compiler may raise: the run can go on without it
        rank_zero_warn(f"head: Triton does not work here, PyTorch takes its place: {error}")
        return rows
    if not agree:
        rank_zero_warn("head: Triton's results differ from PyTorch's, which takes its place")
        return rows
    triton, torch_ = _seconds(triton_rows, logits, labels), _seconds(rows, logits, labels)
    rank_zero_info(
        f"head: 256 rows take {1e3 * triton:.2f} ms in Triton, {1e3 * torch_:.2f} ms in PyTorch"
    )
    return triton_rows if triton < torch_ else rows


def _run(kernel: RowKernel, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    statistics, state = kernel.evaluate(logits.clone(), labels, kernel.scratch(logits))
    ones = torch.ones_like(statistics.nll)
    return *statistics[:4], kernel.slope(state, labels, statistics, RowGradients(ones))


def _agree(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
    return all(
        torch.allclose(one.float(), other.float(), tolerance, tolerance)
        for one, other in zip(actual, expected, strict=True)
    )


def _seconds(kernel: RowKernel, logits: Tensor, labels: Tensor) -> float:
    run = partial(_run, kernel, logits, labels)
    return Timer("run()", globals={"run": run}).timeit(10).median
