"""The Triton kernel, on a GPU if available, otherwise in Triton's interpreter."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.model.head import triton_kernel
from lit_entrodrop.model.head.torch_kernel import RowGradients, RowStatistics

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORDS = (2, 7, 1000, 5000)
PRESENT = list(itertools.product([False, True], repeat=3))
needs_triton = pytest.mark.skipif(triton_kernel.triton is None, reason="Triton is not installed")

Call = Callable[..., Any]


def draw(vocab: int, rows: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    logits = 3 * torch.randn(rows, vocab, generator=generator)
    labels = torch.randint(vocab, (rows,), generator=generator)
    labels[1::3] = -100
    return logits.to(DEVICE, dtype), labels.to(DEVICE)


def draw_gradients(present: tuple[bool, ...], rows: int = 5) -> RowGradients:
    generator = torch.Generator().manual_seed(0)
    nll, *others = torch.randn(4, rows, generator=generator).to(DEVICE)
    return RowGradients(
        nll, *(other if given else None for other, given in zip(others, present, strict=True))
    )


def expected(logits: Tensor, labels: Tensor) -> RowStatistics:
    log_probabilities = logits.log_softmax(-1)
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    chosen = logits.gather(-1, labels.clamp(min=0)[:, None])
    return RowStatistics(
        nll=nll,
        entropy=-(log_probabilities.exp() * log_probabilities).sum(-1),
        logsumexp=logits.logsumexp(-1),
        mean_logit=logits.mean(-1),
        correct=(labels >= 0) & (logits <= chosen).all(-1),
    )


def expected_slope(logits: Tensor, labels: Tensor, gradients: RowGradients) -> Tensor:
    leaf = logits.double().requires_grad_()
    statistics = expected(leaf, labels)._asdict()
    scalars = [
        (statistics[name] * gradient).sum()
        for name, gradient in gradients._asdict().items()
        if gradient is not None
    ]
    return torch.autograd.grad(sum(scalars), leaf)[0]


def assert_agrees(actual: RowStatistics, reference: RowStatistics, **tolerances: float) -> None:
    for name in ("nll", "entropy", "logsumexp", "mean_logit"):
        atol = tolerances.get(name, 1e-5)
        assert getattr(actual, name).dtype == torch.float32
        torch.testing.assert_close(
            getattr(actual, name).double(), getattr(reference, name), atol=atol, rtol=1e-6
        )
    assert torch.equal(actual.correct, reference.correct)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("vocab", WORDS)
def test_statistics_agree_with_float64(
    call: Call, vocab: int, rows: int, dtype: torch.dtype
) -> None:
    logits, labels = draw(vocab, rows, dtype)
    actual, state = call(triton_kernel.evaluate, logits, labels)
    assert_agrees(actual, expected(logits.double(), labels))
    assert torch.equal(state, logits)


@needs_triton
@pytest.mark.parametrize("descending", [False, True])
def test_sums_are_rescaled_as_the_maximum_rises(call: Call, descending: bool) -> None:
    logits, labels = draw(9000)
    # Three blocks; ascending, each of them has a new maximum.
    logits = logits.sort(-1, descending=descending).values
    assert 2 * triton_kernel.LARGEST_BLOCK < 9000 < 3 * triton_kernel.LARGEST_BLOCK
    actual, _ = call(triton_kernel.evaluate, logits, labels)
    assert_agrees(actual, expected(logits.double(), labels))


@needs_triton
@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("vocab", WORDS)
def test_slope_agrees_with_autograd(call: Call, vocab: int, present: tuple[bool, ...]) -> None:
    logits, labels = draw(vocab)
    gradients = draw_gradients(present)
    reference = expected_slope(logits, labels, gradients)
    statistics, state = call(triton_kernel.evaluate, logits, labels)
    actual = call(triton_kernel.slope, state, labels, statistics, gradients)
    torch.testing.assert_close(actual.double(), reference, atol=1e-5, rtol=1e-5)


@needs_triton
# A GPU rounds to nearest, 2⁻⁸ for bf16; the interpreter truncates.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-11)])
def test_slope_is_rounded_once(call: Call, dtype: torch.dtype, rtol: float) -> None:
    logits, labels = draw(1000, dtype=dtype)
    gradients = draw_gradients((True, True, True))
    reference = expected_slope(logits, labels, gradients)
    statistics, state = call(triton_kernel.evaluate, logits, labels)
    actual = call(triton_kernel.slope, state, labels, statistics, gradients)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), reference, atol=1e-6, rtol=1.01 * rtol)


@needs_triton
def test_expanded_gradient_and_odd_strides(call: Call) -> None:
    """A row of the memory may be longer than the vocabulary, and its rest stays untouched."""
    logits, labels = draw(1000)
    # The interpreter's process shares the memory of its arguments.
    memory = torch.full((5, 1011), 7.0, device=DEVICE)
    memory[:, :1000] = logits
    gradients = RowGradients(torch.ones(1, device=DEVICE).expand(5))
    statistics, state = call(triton_kernel.evaluate, memory[:, :1000], labels)
    assert_agrees(statistics, expected(logits.double(), labels))
    call(triton_kernel.slope, state, labels, statistics, gradients)
    reference = expected_slope(logits, labels, gradients)
    torch.testing.assert_close(memory[:, :1000].double(), reference, atol=1e-5, rtol=1e-5)
    assert (memory[:, 1000:] == 7).all()


@needs_triton
def test_ties_count_as_correct_and_the_uniform_entropy_is_ln_v(call: Call) -> None:
    labels = torch.tensor([0, 4999, -100], device=DEVICE)
    statistics, _ = call(triton_kernel.evaluate, torch.zeros(3, 5000, device=DEVICE), labels)
    assert statistics.correct.tolist() == [True, True, False]
    assert statistics.nll[2] == 0
    assert statistics.entropy.tolist() == pytest.approx([math.log(5000)] * 3, abs=1e-5)


@needs_triton
@pytest.mark.parametrize("shift", [-1e4, 1e4])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_huge_logits(call: Call, scale: float, shift: float) -> None:
    logits, labels = draw(5000)
    logits = (logits * scale + shift).clamp(-3e4, 3e4)
    actual, state = call(triton_kernel.evaluate, logits, labels)
    assert_agrees(actual, expected(logits.double(), labels), mean_logit=2e-3, logsumexp=2e-3)
    gradients = draw_gradients((True, True, True))
    reference = expected_slope(logits, labels, gradients)
    slope = call(triton_kernel.slope, state, labels, actual, gradients)
    # A logsumexp of 10⁴ in fp32 is known to ±5·10⁻⁴, and so is ln p.
    torch.testing.assert_close(slope.double(), reference, atol=5e-4, rtol=4e-3)


@needs_triton
@pytest.mark.parametrize("impossible", [slice(1, 3), slice(4999), slice(4096), slice(4096, None)])
@pytest.mark.parametrize("fill", [-math.inf, torch.finfo(torch.float32).min])
def test_impossible_tokens_contribute_nothing(call: Call, impossible: slice, fill: float) -> None:
    logits, _ = draw(5000)
    logits[:, impossible] = fill
    labels = logits.argmax(-1)
    labels[0] = -100
    actual, state = call(triton_kernel.evaluate, logits, labels)
    possible = logits[0] > -1e30
    reference = expected(logits[:, possible].double(), torch.zeros_like(labels))
    torch.testing.assert_close(actual.entropy.double(), reference.entropy, atol=1e-4, rtol=0)
    torch.testing.assert_close(actual.logsumexp.double(), reference.logsumexp, atol=1e-5, rtol=1e-6)
    assert actual.correct.tolist() == [False, True, True, True, True]
    assert actual.nll.isfinite().all()
    slope = call(triton_kernel.slope, state, labels, actual, draw_gradients((True, False, True)))
    assert slope.isfinite().all()
    assert (slope[:, ~possible] == 0).all()


@needs_triton
def test_nan_is_not_hidden(call: Call) -> None:
    logits, labels = draw(5000)
    logits[0, 3] = math.nan
    statistics, _ = call(triton_kernel.evaluate, logits, labels)
    for name in ("nll", "entropy", "logsumexp", "mean_logit"):
        assert getattr(statistics, name).isnan().tolist() == [True] + [False] * 4
    labels[2] = 5000
    statistics, _ = call(triton_kernel.evaluate, logits, labels)
    assert statistics.nll[2].isnan()


@needs_triton
def test_no_rows(call: Call) -> None:
    statistics, state = call(triton_kernel.evaluate, *draw(7, rows=0))
    gradients = draw_gradients((True, True, True), rows=0)
    labels = torch.empty(0, dtype=torch.int64, device=DEVICE)
    assert call(triton_kernel.slope, state, labels, statistics, gradients).shape == (0, 7)


def test_obstacle_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_kernel, "triton", object())
    assert "GPU" in str(triton_kernel.obstacle("cpu"))
    assert triton_kernel.obstacle("cuda:1") is None
    monkeypatch.setattr(triton_kernel, "triton", None)
    assert "pip install triton" in str(triton_kernel.obstacle("cuda"))


def test_imports_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("triton_rows_alone", triton_kernel.__file__)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert "Triton is missing" in alone.obstacle("cuda")
