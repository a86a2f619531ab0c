from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.model.head import kernels, linear_ce_entropy, torch_kernel, triton_kernel
from lit_entrodrop.model.head.kernels import choose_kernel, require_backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CPU = torch.device("cpu")
TRITON, TORCH = triton_kernel.__name__, torch_kernel.__name__
needs_triton = pytest.mark.skipif(triton_kernel.triton is None, reason="Triton is not installed")

Call = Callable[..., Any]


def fastest(triton_seconds: float, torch_seconds: float, fault: str | None = None) -> str:
    """Return the name of the selected kernel, given the measured times and a fault of Triton.

    The fault names a result with an error of 5 %; ``compiler`` means a missing compiler.
    """
    right = triton_kernel.evaluate, triton_kernel.slope

    def evaluate(*arguments: Any) -> tuple[torch_kernel.RowStatistics, Tensor]:
        if fault == "compiler":
            raise RuntimeError("no compiler")
        statistics, state = right[0](*arguments)
        if fault in statistics._fields:
            statistics = statistics._replace(**{fault: 1.05 * getattr(statistics, fault)})
        return statistics, state

    def slope(*arguments: Any) -> Tensor:
        result = right[1](*arguments)
        return 1.05 * result if fault == "slope" else result

    with pytest.MonkeyPatch.context() as patch:
        seconds = {TRITON: triton_seconds, TORCH: torch_seconds}
        patch.setattr(kernels, "_seconds", lambda kernel, *_: seconds[kernel.__name__])
        patch.setattr(triton_kernel, "evaluate", evaluate)
        patch.setattr(triton_kernel, "slope", slope)
        kernels._fastest.cache_clear()
        return kernels._fastest(torch.device(DEVICE), 50, torch.float32).__name__


@needs_triton
def test_the_faster_kernel_is_chosen(call: Call) -> None:
    assert call(fastest, 1.0, 2.0) == TRITON
    assert call(fastest, 2.0, 1.0) == TORCH


@needs_triton
@pytest.mark.parametrize("fault", ["nll", "entropy", "slope"])
def test_a_kernel_that_disagrees_is_never_chosen(call: Call, fault: str) -> None:
    assert call(fastest, 1.0, 2.0, fault) == TORCH


@needs_triton
@pytest.mark.filterwarnings("ignore:head. Triton does not work here")
def test_a_kernel_that_cannot_be_compiled_is_never_chosen(call: Call) -> None:
    assert call(fastest, 1.0, 2.0, "compiler") == TORCH


def test_measures_seconds() -> None:
    logits, labels = torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)
    assert kernels._seconds(torch_kernel, logits, labels) > 0
    assert not logits.any()


def evaluate_head(backend: str, beforehand: bool, dtype: torch.dtype) -> list[Tensor]:
    """Return all results and gradients of a head with bias, adapter and soft cap."""
    generator = torch.Generator().manual_seed(0)
    tokens, dimensions, vocab = 9, 4, 1100
    hidden, weight, bias, down, up = (
        torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_()
        for shape in ((tokens, dimensions), (vocab, dimensions), (vocab,), (tokens, 2), (vocab, 2))
    )
    labels = torch.randint(vocab, (tokens,), generator=generator).to(DEVICE)
    labels[3] = -100
    token_weight = torch.linspace(-1, 2, tokens, device=DEVICE)
    options: dict[str, Any] = {"entropy_gradient": True, "top_k": 20}
    if beforehand:
        options = {"token_weight": token_weight, "top_k": 20}
    outputs = linear_ce_entropy(
        hidden,
        weight,
        labels,
        bias=bias,
        lora=(down, up),
        softcap=3.0,
        chunk_size=4,
        backend=backend,  # type: ignore[arg-type]
        **options,
    )
    loss = outputs.weighted_loss
    if loss is None:
        loss = (token_weight * torch.stack(outputs[:4])).sum()
    gradients = torch.autograd.grad(loss, (hidden, weight, bias, down, up))
    assert outputs.top_entropy is not None
    return [each.detach() for each in (*outputs[:5], outputs.top_entropy, loss, *gradients)]


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("beforehand", [True, False])
def test_triton_end_to_end_equals_torch(call: Call, beforehand: bool, dtype: torch.dtype) -> None:
    triton = call(evaluate_head, "triton", beforehand, dtype)
    torch_ = call(evaluate_head, "torch", beforehand, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    for one, other in zip(triton, torch_, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def choose_triton(dtype: torch.dtype) -> str:
    return choose_kernel("triton", torch.device(DEVICE), 10, dtype).__name__


@needs_triton
def test_triton_serves_all_but_fp64(call: Call) -> None:
    assert call(choose_triton, torch.bfloat16) == TRITON
    assert call(choose_triton, torch.float64) == TORCH


def test_torch_serves_where_triton_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choose_kernel("auto", CPU, 10, torch.float32) is torch_kernel
    assert choose_kernel("auto", torch.device("meta"), 10, torch.float32) is torch_kernel
    with pytest.raises(ValueError, match="'triton' cannot run here"):
        choose_kernel("triton", CPU, 10, torch.float32)


def test_unknown_names_are_refused() -> None:
    for refuse in (
        lambda: require_backend("tritom", CPU),  # type: ignore[arg-type]
        lambda: choose_kernel("tritom", CPU, 10, torch.float64),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="expected one of auto, torch, triton, got"):
            refuse()
