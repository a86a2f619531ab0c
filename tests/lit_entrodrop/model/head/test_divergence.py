from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lit_entrodrop.model.head import LinearHead, linear_kl
from tests.lit_entrodrop.model.head.test_linear import Memory

N, D, E, V = 7, 4, 3, 11


def kl(
    hidden: Tensor,
    weight: Tensor,
    other: Tensor,
    other_weight: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    heads = LinearHead(hidden, weight), LinearHead(other, other_weight)
    divergence: Tensor = linear_kl(*heads, chunk_size)[0]
    return divergence


def draw(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, D), (V, D), (N, E), (V, E))
    hidden, weight, other, other_weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    )
    return hidden, weight, other, other_weight


@pytest.mark.parametrize("chunk_size", [1, 3, N, None])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_agrees_with_scipy(dtype: torch.dtype, tolerance: float, chunk_size: int | None) -> None:
    hidden, weight, other, other_weight = draw(dtype)
    divergence = kl(hidden, weight, other, other_weight, chunk_size)
    assert divergence.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    p, q = (
        scipy.special.softmax(states.double().numpy() @ matrix.double().numpy().T, axis=-1)
        for states, matrix in ((hidden, weight), (other, other_weight))
    )
    expected = torch.from_numpy(scipy.stats.entropy(p, q, axis=-1))
    torch.testing.assert_close(divergence.double(), expected, atol=tolerance, rtol=tolerance)


def test_gradcheck_on_both_sides() -> None:
    arguments = [tensor.requires_grad_() for tensor in draw()]
    assert torch.autograd.gradcheck(lambda *args: kl(*args, chunk_size=3), arguments)


def test_one_head_for_both_passes_as_in_r_drop() -> None:
    hidden, weight, _, _ = draw()
    other = hidden.flip(0).contiguous()
    inputs = [tensor.requires_grad_() for tensor in (hidden, other, weight)]
    forth, back = linear_kl(LinearHead(hidden, weight), LinearHead(other, weight), chunk_size=3)
    log_p, log_q = ((states @ weight.T).log_softmax(-1) for states in (hidden, other))
    naive = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
    for one, two in zip(
        torch.autograd.grad((forth + back).sum(), inputs),
        torch.autograd.grad(naive.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("direction", [0, 1])
def test_either_direction_alone_has_its_gradient(direction: int) -> None:
    arguments = [tensor.requires_grad_() for tensor in draw()]
    hidden, weight, other, other_weight = arguments
    both = linear_kl(LinearHead(hidden, weight), LinearHead(other, other_weight))
    log_p, log_q = (
        (states @ matrix.T).log_softmax(-1)
        for states, matrix in ((hidden, weight), (other, other_weight))
    )
    first, second = ((log_p, log_q), (log_q, log_p))[direction]
    naive = (first.exp() * (first - second)).sum(-1)
    factors = torch.arange(N)
    gradients = torch.autograd.grad((both[direction] * factors).sum(), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad((naive * factors).sum(), arguments))


def test_both_directions_cost_as_much_arithmetic_as_one() -> None:
    heads = [LinearHead(*(each.requires_grad_() for each in draw()[:2])) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        sum(linear_kl(*heads)).sum().backward()  # type: ignore[union-attr]
    assert counter.get_total_flops() == 16 * N * D * V


def test_memory_beside_the_gradients_is_that_of_two_chunks_and_few_blocks() -> None:
    tokens, vocab, chunk_size = 64, 2**17, 8
    states = [torch.randn(tokens, 8, requires_grad=True) for _ in range(2)]
    weight = torch.randn(vocab, 8, requires_grad=True)
    heads = [LinearHead(each, weight) for each in states]
    with Memory() as memory:
        forth, back = linear_kl(*heads, chunk_size)
        (forth + back).sum().backward()
    # Both softmaxes of a block of four rows; one sum of both sides' gradients, and its weight.
    rows = 2 * chunk_size + 2 * 4 + 8 + 8
    assert memory.peak < 1.1 * rows * vocab * 4


def test_a_frozen_side_costs_nothing_in_the_backward_pass() -> None:
    hidden, weight, other, other_weight = draw()
    hidden.requires_grad_(), weight.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        kl(hidden, weight, other, other_weight).sum().backward()
    assert counter.get_total_flops() == 8 * N * D * V + 4 * N * E * V
    assert other.grad is None


def test_equal_distributions_have_no_divergence_and_no_gradient() -> None:
    hidden, weight, _, _ = draw(torch.float32)
    hidden.requires_grad_()
    divergence = kl(hidden, weight, hidden.detach(), weight)
    divergence.sum().backward()
    assert (divergence == 0).all()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, torch.zeros_like(hidden))


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 3, 2), (4, 2), (1, 3, 2), (4, 2)),
        ((3, 2), (4, 3), (3, 2), (4, 2)),
        ((3, 2), (4, 2), (3, 2), (4, 3)),
        ((3, 2), (0, 2), (3, 2), (0, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    hidden, weight, other, other_weight = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match=r"expected hidden \[N, D\], weight \[V, D\]"):
        kl(hidden, weight, other, other_weight)


@pytest.mark.parametrize(("tokens", "vocab"), [(2, 4), (3, 5)])
def test_other_numbers_of_tokens_or_vocabulary_sizes_are_refused(tokens: int, vocab: int) -> None:
    with pytest.raises(
        ValueError,
        match="expected both heads to have the same number of tokens and vocabulary size",
    ):
        kl(torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(tokens, 2), torch.zeros(vocab, 2))


def test_heads_that_have_everything() -> None:
    """Bias, adapter and soft cap on one side, bias alone on the other: SciPy and gradcheck."""
    generator = torch.Generator().manual_seed(1)
    bias, more, adapter, other_bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((V,), (N, 2), (V, 2), (V,))
    )
    tensors = [*draw(), bias, more, adapter, other_bias]

    def divergences(*all_tensors: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight, other, other_weight, bias, more, adapter, other_bias = all_tensors
        result: tuple[Tensor, Tensor] = linear_kl(
            LinearHead(hidden, weight, bias, (more, adapter), softcap=3.0),
            LinearHead(other, other_weight, other_bias),
            chunk_size=3,
        )
        return result

    hidden, weight, other, other_weight = tensors[:4]
    logits = 3.0 * np.tanh((hidden @ weight.T + bias + more @ adapter.T).numpy() / 3.0)
    others = (other @ other_weight.T + other_bias).numpy()
    p, q = (scipy.special.softmax(each, axis=-1) for each in (logits, others))
    forth, back = divergences(*tensors)
    np.testing.assert_allclose(forth, scipy.stats.entropy(p, q, axis=-1))
    np.testing.assert_allclose(back, scipy.stats.entropy(q, p, axis=-1))
    assert torch.autograd.gradcheck(divergences, [each.requires_grad_() for each in tensors])


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, True])
def test_chunk_sizes_that_are_none_are_refused(chunk_size: Any) -> None:
    with pytest.raises(ValueError, match="chunk_size: expected an integer above 0"):
        kl(*draw(), chunk_size=chunk_size)


def test_integers_are_refused() -> None:
    hidden, weight, other, other_weight = draw()
    with pytest.raises(ValueError, match="of a floating dtype"):
        kl(hidden, weight, other.long(), other_weight)


def test_a_second_derivative_is_refused() -> None:
    hidden, *others = draw()
    divergence = kl(hidden.requires_grad_(), *others)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(divergence.sum(), hidden, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_all_tokens_never_exist(dtype: torch.dtype) -> None:
    tokens, vocab, chunk_size = 64, 512, 4
    heads = [
        torch.randn(rows, 4, dtype=dtype, requires_grad=True)
        for rows in (tokens, vocab, tokens, vocab)
    ]
    with Memory() as memory:
        kl(*heads, chunk_size=chunk_size).sum().backward()
    assert memory.largest == chunk_size * vocab


@pytest.mark.parametrize("autocast", [False, True])
def test_chunks_cost_no_precision_of_16_bit_gradients(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, vocab = 4096, 256
    dtype = torch.float32 if autocast else torch.bfloat16
    heads = [
        torch.randn(rows, 8, generator=generator).bfloat16().to(dtype)
        for rows in (tokens, vocab, tokens, vocab)
    ]
    exact = gradients([head.double() for head in heads], tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        chunked, whole = gradients(heads, 128), gradients(heads, tokens)
    for one, other, reference in zip(chunked, whole, exact, strict=True):
        assert (one - reference).norm() < 1.2 * (other - reference).norm()


def gradients(heads: list[Tensor], chunk_size: int) -> list[Tensor]:
    leaves = [head.detach().requires_grad_() for head in heads]
    kl(*leaves, chunk_size=chunk_size).sum().backward()
    return [leaf.grad.double() for leaf in leaves if leaf.grad is not None]


def test_autocast_keeps_the_sum_of_weight_gradients_in_full_precision() -> None:
    """One large gradient and many small ones: bf16 would lose the small ones chunk by chunk."""
    tokens = 257
    hidden = torch.full((tokens, 1), 1 / 256)
    hidden[0] = 1.0
    other_weight = torch.zeros(2, 1, requires_grad=True)
    certain = torch.tensor([[100.0], [0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kl(torch.ones(tokens, 1), certain, hidden, other_weight, chunk_size=1).sum().backward()
    torch.testing.assert_close(other_weight.grad, torch.tensor([[-1.0], [1.0]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_tokens(dtype: torch.dtype) -> None:
    hidden, weight, other, other_weight = draw(dtype)
    divergence = kl(hidden[:0], weight, other[:0], other_weight)
    assert divergence.shape == (0,)
    assert divergence.dtype == torch.promote_types(dtype, torch.float32)
