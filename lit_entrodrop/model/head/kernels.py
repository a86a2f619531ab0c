"""Choice of the backend of the head: the faster of PyTorch and Triton, unless one is named."""

from functools import lru_cache, partial
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_entrodrop.model.head import torch_kernel, triton_kernel
from lit_entrodrop.model.head.torch_kernel import RowGradients, RowKernel

Backend = Literal["auto", "torch", "triton"]


def check_backend(backend: str) -> None:
    """Raise a ValueError if there is no backend of this name."""
    if backend not in get_args(Backend):
        raise ValueError(f"head: expected one of {', '.join(get_args(Backend))}, got {backend!r}")


def require_backend(backend: Backend, device: torch.device) -> None:
    """Raise a ValueError if a backend cannot run on a device, or does not exist."""
    check_backend(backend)
    if backend == "triton" and (obstacle := triton_kernel.obstacle(device)):
        raise ValueError(f"head: {backend!r} cannot run here: {obstacle}; use 'auto' or 'torch'")


def choose_kernel(
    backend: Backend, device: torch.device, vocabulary_size: int, dtype: torch.dtype
) -> RowKernel:
    """Return the kernel that evaluates rows of logits.

    Args:
        backend: ``torch``, ``triton``, or ``auto``: the one that measures faster.
        device: Device of the logits.
        vocabulary_size: Number of logits per row, V.
        dtype: Dtype of the logits; PyTorch replaces Triton for fp64.

    Raises:
        ValueError: If the kernel cannot run on the device, or does not exist.

    >>> choose_kernel("auto", torch.device("cpu"), 10, torch.float32).__name__
    'lit_entrodrop.model.head.torch_kernel'
    """
    check_backend(backend)
    if backend == "torch" or dtype == torch.float64:
        return torch_kernel
    if backend == "triton":
        require_backend(backend, device)
        return triton_kernel
    if device.type == "cpu" or triton_kernel.obstacle(device):
        return torch_kernel
    return _fastest(device, vocabulary_size, dtype)


@lru_cache(maxsize=16)
def _fastest(device: torch.device, vocabulary_size: int, dtype: torch.dtype) -> RowKernel:
    """Return the Triton kernel if it agrees with PyTorch on random rows and is faster."""
    generator = torch.Generator(device).manual_seed(0)
    logits = 5 * torch.randn(256, vocabulary_size, generator=generator, device=device)
    logits = logits.to(dtype)
    labels = torch.arange(256, device=device) % vocabulary_size
    try:
        actual = _run(triton_kernel, logits, labels)
        expected = _run(torch_kernel, logits, labels)
        tolerance = 1e-3 if dtype == torch.float32 else 2e-2
        agree = all(
            torch.allclose(one.float(), other.float(), tolerance, tolerance)
            for one, other in zip(actual, expected, strict=True)
        )
    except Exception as error:  # a compiler may raise anything, and the run does not need it
        rank_zero_warn(f"head: Triton does not work here, using PyTorch instead: {error}")
        return torch_kernel
    if not agree:
        rank_zero_warn("head: Triton's results differ from PyTorch's, using PyTorch instead")
        return torch_kernel
    triton, torch_ = _seconds(triton_kernel, logits, labels), _seconds(torch_kernel, logits, labels)
    rank_zero_info(
        f"head: 256 rows take {1e3 * triton:.2f} ms with Triton, {1e3 * torch_:.2f} ms with PyTorch"
    )
    return triton_kernel if triton < torch_ else torch_kernel


def _run(kernel: RowKernel, logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    statistics, state = kernel.evaluate(logits.clone(), labels, kernel.scratch(logits))
    ones = torch.ones_like(statistics.nll)
    return *statistics[:4], kernel.slope(state, labels, statistics, RowGradients(ones))


def _seconds(kernel: RowKernel, logits: Tensor, labels: Tensor) -> float:
    from torch.utils.benchmark import Timer

    run = partial(_run, kernel, logits, labels)
    return Timer("run()", globals={"run": run}).timeit(10).median
