from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_entrodrop.head import HeadOutputs, linear_ce_entropy

N, D, V = 11, 5, 17


def draw(
    dtype: torch.dtype = torch.float64, scale: float = 1.0, tokens: int = N, ignored: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, D, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64)
    labels = torch.randint(V, (tokens,), generator=generator)
    if ignored:
        labels[1::4] = -100
    return hidden.to(dtype), weight.to(dtype), labels


def expected(hidden: Tensor, weight: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compute everything by SciPy in float64."""
    logits = hidden.double().numpy() @ weight.double().numpy().T
    logsumexp = scipy.special.logsumexp(logits, axis=-1)
    counted = labels.numpy() >= 0
    chosen = logits[np.arange(len(labels)), labels.clamp(min=0).numpy()]
    return {
        "nll": np.where(counted, logsumexp - chosen, 0.0),
        "entropy": scipy.stats.entropy(scipy.special.softmax(logits, axis=-1), axis=-1),
        "logsumexp": logsumexp,
        "correct": counted & (logits.argmax(-1) == labels.numpy()),
    }


def assert_equal(outputs: HeadOutputs, reference: dict[str, Any], tolerance: float) -> None:
    for name in ("nll", "entropy", "logsumexp"):
        actual = getattr(outputs, name).detach().double().numpy()
        np.testing.assert_allclose(actual, reference[name], atol=tolerance, rtol=tolerance)
    np.testing.assert_array_equal(outputs.correct.numpy(), reference["correct"])


@pytest.mark.parametrize("chunk_size", [1, 7, N, 100, None])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.05)]
)
def test_agrees_with_scipy(dtype: torch.dtype, tolerance: float, chunk_size: int | None) -> None:
    arguments = draw(dtype)
    outputs = linear_ce_entropy(*arguments, chunk_size=chunk_size)
    assert outputs.nll.dtype == outputs.entropy.dtype == outputs.logsumexp.dtype
    assert outputs.nll.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert outputs.correct.dtype == torch.bool
    assert_equal(outputs, expected(*arguments), tolerance)


def naive_loss(hidden: Tensor, weight: Tensor, labels: Tensor, mix: Tensor) -> Tensor:
    logits = hidden @ weight.T
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    return (mix[0] * nll + mix[1] * logits.logsumexp(-1).square()).sum()


@pytest.mark.parametrize("chunk_size", [1, 7, N, None])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 0.25)]
)
def test_gradients_agree_with_autograd(
    dtype: torch.dtype, tolerance: float, chunk_size: int | None
) -> None:
    hidden, weight, labels = draw(dtype)
    mix = torch.rand(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    naive_loss(*exact, labels, mix).backward()
    own = [hidden.requires_grad_(), weight.requires_grad_()]
    outputs = linear_ce_entropy(*own, labels, chunk_size=chunk_size)
    (mix[0] * outputs.nll + mix[1] * outputs.logsumexp.square()).sum().backward()
    for tensor, reference in zip(own, exact, strict=True):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype
        torch.testing.assert_close(tensor.grad.double(), reference.grad, atol=tolerance, rtol=0.03)


def test_gradcheck() -> None:
    hidden, weight, labels = draw(tokens=4)
    arguments = (hidden.requires_grad_(), weight.requires_grad_())

    def differentiable(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        outputs = linear_ce_entropy(hidden, weight, labels, chunk_size=3)
        return outputs.nll, outputs.logsumexp

    assert torch.autograd.gradcheck(differentiable, arguments)


@pytest.mark.parametrize("label", [0, 5])
def test_entropy_is_nll_less_hidden_times_its_gradient(label: int) -> None:
    """H = −Σ p ln p, and ⟨h, ∂nll/∂h⟩ = Σ p z − z_label, so nll − ⟨h, ∂nll/∂h⟩ = H."""
    hidden, weight, _ = draw()
    hidden.requires_grad_()
    outputs = linear_ce_entropy(hidden, weight, torch.full((N,), label))
    outputs.nll.sum().backward()
    assert hidden.grad is not None
    oracle = outputs.nll - (hidden * hidden.grad).sum(-1)
    torch.testing.assert_close(outputs.entropy, oracle.detach(), atol=1e-12, rtol=0)


def test_ignored_tokens_have_no_loss_and_no_gradient_but_an_entropy() -> None:
    hidden, weight, labels = draw()
    hidden.requires_grad_()
    outputs = linear_ce_entropy(hidden, weight, labels)
    outputs.nll.sum().backward()
    ignored = labels == -100
    assert hidden.grad is not None
    assert torch.equal(outputs.nll[ignored], torch.zeros(int(ignored.sum()), dtype=torch.float64))
    assert not hidden.grad[ignored].any()
    assert hidden.grad[~ignored].any(-1).all()
    assert not outputs.correct[ignored].any()
    assert (outputs.entropy[ignored] > 0).all()


@pytest.mark.parametrize("tokens", [0, 3])
def test_nothing_counted_gives_a_zero_attached_to_the_graph(tokens: int) -> None:
    hidden, weight, _ = draw(tokens=tokens)
    hidden.requires_grad_(), weight.requires_grad_()
    outputs = linear_ce_entropy(hidden, weight, torch.full((tokens,), -100), chunk_size=2)
    outputs.nll.sum().backward()
    assert all(rows.shape == (tokens,) for rows in outputs)
    assert outputs.nll.sum() == 0
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_entropy_carries_no_gradient() -> None:
    hidden, weight, labels = draw()
    assert not linear_ce_entropy(hidden.requires_grad_(), weight, labels).entropy.requires_grad


def test_frozen_weight_or_hidden_get_no_gradient() -> None:
    hidden, weight, labels = draw()
    linear_ce_entropy(hidden.requires_grad_(), weight, labels).nll.sum().backward()
    assert weight.grad is None
    alone = weight.clone().requires_grad_()
    linear_ce_entropy(hidden.detach(), alone, labels).nll.sum().backward()
    assert alone.grad is not None


def test_non_contiguous_input() -> None:
    hidden, weight, labels = draw()
    turned = hidden.T.contiguous().T.requires_grad_()
    spaced = torch.stack([weight, weight], 1)[:, 0].requires_grad_()
    assert not turned.is_contiguous()
    assert not spaced.is_contiguous()
    outputs = linear_ce_entropy(turned, spaced, labels, chunk_size=3)
    assert_equal(outputs, expected(hidden, weight, labels), 1e-12)
    outputs.nll.sum().backward()
    plain = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    linear_ce_entropy(*plain, labels).nll.sum().backward()
    torch.testing.assert_close(turned.grad, plain[0].grad)
    torch.testing.assert_close(spaced.grad, plain[1].grad)


@pytest.mark.parametrize("chunk_size", [3, N])
def test_backward_may_be_repeated(chunk_size: int) -> None:
    hidden, weight, labels = draw()
    outputs = linear_ce_entropy(hidden.requires_grad_(), weight, labels, chunk_size)
    outputs.nll.sum().backward(retain_graph=True)
    assert hidden.grad is not None
    once = hidden.grad.clone()
    outputs.nll.sum().backward()
    torch.testing.assert_close(hidden.grad, 2 * once)


def test_arguments_are_not_modified() -> None:
    arguments = draw()
    before = [argument.clone() for argument in arguments]
    hidden, weight, labels = arguments
    linear_ce_entropy(hidden.requires_grad_(), weight.requires_grad_(), labels).nll.sum().backward()
    assert all(torch.equal(old, new) for old, new in zip(before, arguments, strict=True))


def test_weight_tied_to_the_embedding_sums_both_gradients() -> None:
    _, weight, labels = draw()
    ids = torch.arange(N) % V

    def gradient(head: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        table = weight.clone().requires_grad_()
        head(nn.functional.embedding(ids, table).tanh(), table).backward()
        assert table.grad is not None
        return table.grad

    fused = gradient(lambda hidden, table: linear_ce_entropy(hidden, table, labels, 4).nll.sum())
    naive = gradient(
        lambda hidden, table: nn.functional.cross_entropy(hidden @ table.T, labels, reduction="sum")
    )
    torch.testing.assert_close(fused, naive)


def test_extreme_logits_stay_finite() -> None:
    """Logits of ±10⁴: exact answers are known, as one word takes all probability."""
    hidden = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0], [-1.0]], requires_grad=True)
    outputs = linear_ce_entropy(hidden, weight, torch.tensor([2, 2, 0]))
    torch.testing.assert_close(outputs.nll, torch.tensor([2e4, log(2), log(4)]))
    torch.testing.assert_close(outputs.entropy, torch.tensor([0.0, log(2), log(4)]))
    torch.testing.assert_close(outputs.logsumexp, torch.tensor([1e4, 1e4 + log(2), log(4)]))
    outputs.nll.sum().backward()
    assert hidden.grad is not None
    # fp32 holds a logsumexp of 10⁴ to 5e-4, which is the relative error of a probability.
    slope = torch.tensor([[2.0], [0.0], [-1.25]])
    torch.testing.assert_close(hidden.grad, slope, atol=1e-3, rtol=0)


@pytest.mark.parametrize("chunk_size", [1, N])
def test_autocast_equals_rounding_the_inputs(chunk_size: int) -> None:
    hidden, weight, labels = draw(torch.float32)
    own = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = linear_ce_entropy(*own, labels, chunk_size=chunk_size)
    assert outputs.nll.dtype == torch.float32
    rounded = linear_ce_entropy(hidden.bfloat16(), weight.bfloat16(), labels)
    torch.testing.assert_close(outputs.entropy, rounded.entropy)
    outputs.nll.sum().backward()
    assert own[0].grad is not None
    assert own[0].grad.dtype == torch.float32


def test_ties_count_as_correct() -> None:
    hidden = torch.tensor([[1.0, 1.0, 0.0]] * 3)
    rows = linear_ce_entropy(hidden, torch.eye(3), torch.tensor([0, 1, 2]))
    assert rows.correct.tolist() == [True, True, False]


@contextmanager
def largest_tensor() -> Iterator[list[int]]:
    sizes = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    sizes[0] = max(sizes[0], tensor.numel())
            return result

    with Watch():
        yield sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_all_tokens_never_exist(dtype: torch.dtype) -> None:
    tokens, dimensions, words, chunk_size = 64, 4, 512, 4
    hidden = torch.randn(tokens, dimensions, dtype=dtype, requires_grad=True)
    weight = torch.randn(words, dimensions, dtype=dtype, requires_grad=True)
    labels = torch.zeros(tokens, dtype=torch.long)
    with largest_tensor() as fused:
        linear_ce_entropy(hidden, weight, labels, chunk_size).nll.sum().backward()
    with largest_tensor() as naive:
        nn.functional.cross_entropy((hidden @ weight.T).float(), labels).backward()
    assert fused[0] == chunk_size * words
    assert naive[0] == tokens * words
