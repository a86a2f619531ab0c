import ctypes
import weakref
from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lit_entrodrop.model.head import HeadOutputs, linear_ce_entropy
from tests.helpers.processes import run_forked

N, D, V = 11, 5, 17
M_MMAP_THRESHOLD = -3  # of the C library


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
    """Compute all results with SciPy in float64."""
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


def test_large_vocabulary_in_fp32_agree_with_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 16, generator=generator) for rows in (24, 151936))
    labels = torch.randint(len(weight), (24,), generator=generator)
    outputs = linear_ce_entropy(hidden, weight, labels, chunk_size=10)
    reference = expected(hidden, weight, labels)
    assert np.ptp(reference["entropy"]) > 5, "sharp and flat distributions"
    assert_equal(outputs, reference, 1e-5)


@pytest.mark.parametrize("chunk_size", [7, None])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("top_k", [1, 4, V, 100])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.05)]
)
def test_entropy_among_the_most_likely_tokens_agrees_with_scipy(
    dtype: torch.dtype, tolerance: float, top_k: int, weighted: bool, chunk_size: int | None
) -> None:
    hidden, weight, labels = draw(dtype)
    token_weight = torch.ones(N) if weighted else None
    settings: dict[str, Any] = {"token_weight": token_weight, "chunk_size": chunk_size}
    outputs = linear_ce_entropy(
        hidden.requires_grad_(), weight, labels, softcap=3.0, top_k=top_k, **settings
    )
    capped = 3 * np.tanh(hidden.detach().double().numpy() @ weight.double().numpy().T / 3)
    likely = scipy.special.softmax(np.sort(capped, axis=-1)[:, -top_k:], axis=-1)
    actual = outputs.top_entropy
    assert actual is not None
    assert actual.dtype == outputs.nll.dtype
    assert not actual.requires_grad
    np.testing.assert_allclose(
        actual.double(), scipy.stats.entropy(likely, axis=-1), atol=tolerance
    )
    # Nothing else changes.
    plain = linear_ce_entropy(hidden, weight, labels, softcap=3.0, **settings)
    assert plain.top_entropy is None
    assert all(map(torch.equal, outputs[:5], plain[:5]))


def naive_loss(hidden: Tensor, weight: Tensor, labels: Tensor, mix: Tensor) -> Tensor:
    logits = hidden @ weight.T
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    return (mix[0] * nll + mix[1] * logits.logsumexp(-1).square()).sum()


@pytest.mark.parametrize("chunk_size", [1, 7, N, None])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
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
        assert relative_error(tensor.grad, reference.grad) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("beforehand", [True, False])
def test_gradients_of_a_large_vocabulary_agree_with_autograd(
    beforehand: bool, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, dimensions, vocab = 24, 8, 32768
    drawn = [
        torch.randn(rows, dimensions, generator=generator, dtype=dtype) for rows in (tokens, vocab)
    ]
    labels = torch.randint(vocab, (tokens,), generator=generator)
    exact = [tensor.double().clone().requires_grad_() for tensor in drawn]
    own, plain = ([tensor.clone().requires_grad_() for tensor in drawn] for _ in range(2))
    for hidden, weight in (exact, plain):
        nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum").backward()
    weights = torch.ones(tokens) if beforehand else None
    loss(linear_ce_entropy(*own, labels, token_weight=weights, chunk_size=10)).backward()
    for tensor, naive, reference in zip(own, plain, exact, strict=True):
        # On some CPUs the library's product is less accurate than that for this vocabulary.
        allowed = max(tolerance, 1.5 * relative_error(naive.grad, reference.grad))
        assert relative_error(tensor.grad, reference.grad) < allowed


def test_the_scale_of_a_loss_saves_fp16_gradients_from_underflow() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, vocab, scale = 1024, 8192, 65536.0
    exact = [
        (torch.randn(rows, 16, generator=generator) * 0.3).half().double().requires_grad_()
        for rows in (tokens, vocab)
    ]
    labels = torch.randint(vocab, (tokens,), generator=generator)
    nn.functional.cross_entropy(exact[0] @ exact[1].T, labels).backward()
    own = [tensor.detach().half().requires_grad_() for tensor in exact]
    weights = torch.full((tokens,), 1 / tokens)
    (scale * loss(linear_ce_entropy(*own, labels, token_weight=weights))).backward()
    for tensor, reference in zip(own, exact, strict=True):
        assert tensor.grad is not None
        assert relative_error(tensor.grad.double() / scale, reference.grad) < 2e-3


def loss(outputs: HeadOutputs) -> Tensor:
    return outputs.nll.sum() if outputs.weighted_loss is None else outputs.weighted_loss


def relative_error(actual: Tensor | None, exact: Tensor | None) -> float:
    """Return the largest error, relative to the largest element."""
    assert actual is not None
    assert exact is not None
    return float((actual.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("beforehand", [True, False])
def test_chunks_cost_no_precision_of_16_bit_gradients(beforehand: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, dimensions, vocab = 4096, 8, 1024
    hidden, weight, bias, down, up = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((tokens, dimensions), (vocab, dimensions), (vocab,), (tokens, 2), (vocab, 2))
    )
    labels = torch.randint(vocab, (tokens,), generator=generator)
    inputs = hidden, weight, bias, down, up

    def error(chunk_size: int) -> list[float]:
        weights = torch.ones(tokens) if beforehand else None
        outputs = linear_ce_entropy(
            hidden,
            weight,
            labels,
            bias=bias,
            lora=(down, up),
            token_weight=weights,
            chunk_size=chunk_size,
        )
        gradients = torch.autograd.grad(loss(outputs), inputs)
        assert all(gradient.dtype == dtype for gradient in gradients)
        return [float((g - e).norm() / e.norm()) for g, e in zip(gradients, exact, strict=True)]

    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    logits = doubles[0] @ doubles[1].T + doubles[2] + doubles[3] @ doubles[4].T
    exact = torch.autograd.grad(
        nn.functional.cross_entropy(logits, labels, reduction="sum"), doubles
    )
    for chunked, whole in zip(error(128), error(tokens), strict=True):
        assert chunked < 1.2 * whole


@pytest.mark.parametrize("beforehand", [True, False])
def test_a_second_derivative_is_refused(beforehand: bool) -> None:
    hidden, weight, labels = draw()
    weights = torch.ones(N) if beforehand else None
    outputs = linear_ce_entropy(hidden.requires_grad_(), weight, labels, token_weight=weights)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss(outputs), hidden, create_graph=True)


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
    assert all(rows.shape == (tokens,) for rows in outputs[:5])
    assert outputs.weighted_loss is None
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
    outputs = linear_ce_entropy(hidden.requires_grad_(), weight, labels, chunk_size=chunk_size)
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

    fused = gradient(
        lambda hidden, table: linear_ce_entropy(hidden, table, labels, chunk_size=4).nll.sum()
    )
    naive = gradient(
        lambda hidden, table: nn.functional.cross_entropy(hidden @ table.T, labels, reduction="sum")
    )
    torch.testing.assert_close(fused, naive)


def test_extreme_logits_stay_finite() -> None:
    """Logits of ±10⁴: exact answers are known, because one token has all probability."""
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


def rich_head(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {"bias": random(V), "lora": (random(N, 2), random(V, 2)), "softcap": 3.0}


def naive_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    lora: tuple[Tensor, Tensor] | None = None,
    softcap: float | None = None,
) -> Tensor:
    logits = hidden @ weight.T
    if lora is not None:
        logits = logits + lora[0] @ lora[1].T
    if bias is not None:
        logits = logits + bias
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


HEADS = ["plain", "bias", "lora", "softcap", "all"]


def options_of(head: str, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    rich = rich_head(dtype)
    return {"plain": {}, "all": rich}.get(head) or {k: v for k, v in rich.items() if k == head}


def leaves(hidden: Tensor, weight: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """Require gradients of all tensors that can have one."""
    tensors = [hidden, weight, *options.get("lora", ())]
    if "bias" in options:
        tensors.append(options["bias"])
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_agrees_with_scipy(head: str) -> None:
    hidden, weight, labels = draw()
    options = options_of(head)
    outputs = linear_ce_entropy(hidden, weight, labels, chunk_size=4, **options)
    logits = naive_logits(hidden, weight, **options)
    # With an identity as the head, the hidden states are the logits.
    assert_equal(outputs, expected(logits, torch.eye(V), labels), 1e-12)
    torch.testing.assert_close(outputs.mean_logit, logits.mean(-1))


@pytest.mark.parametrize("head", HEADS)
def test_every_statistic_of_every_head_passes_gradcheck(head: str) -> None:
    hidden, weight, labels = draw()
    options = options_of(head)
    inputs = leaves(hidden, weight, options)

    def statistics(*_: Tensor) -> tuple[Tensor, ...]:
        outputs = linear_ce_entropy(
            hidden, weight, labels, chunk_size=4, entropy_gradient=True, **options
        )
        return outputs[:4]

    assert torch.autograd.gradcheck(statistics, inputs)


@pytest.mark.parametrize("head", HEADS)
def test_weighted_loss_and_its_gradients_agree_with_torch(head: str) -> None:
    hidden, weight, labels = draw()
    token_weight = torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    options = options_of(head)
    inputs = leaves(hidden, weight, options)
    outputs = linear_ce_entropy(
        hidden,
        weight,
        labels,
        token_weight=token_weight,
        chunk_size=4,
        **options,
    )
    assert outputs.weighted_loss is not None
    own = torch.autograd.grad(3 * outputs.weighted_loss, inputs)
    logits = naive_logits(hidden, weight, **options)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    expected_loss = (token_weight * losses).sum()
    torch.testing.assert_close(outputs.weighted_loss, expected_loss)
    for gradient, reference in zip(
        own, torch.autograd.grad(3 * expected_loss, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", HEADS)
def test_both_ways_to_the_gradient_agree_in_every_precision(head: str, dtype: torch.dtype) -> None:
    hidden, weight, labels = draw(dtype)
    token_weight = torch.rand(N, generator=torch.Generator().manual_seed(3))
    options = options_of(head, dtype)
    inputs = leaves(hidden, weight, options)
    beforehand = linear_ce_entropy(
        hidden, weight, labels, token_weight=token_weight, chunk_size=4, **options
    )
    afterwards = linear_ce_entropy(hidden, weight, labels, chunk_size=4, **options)
    assert beforehand.weighted_loss is not None
    ours = torch.autograd.grad(beforehand.weighted_loss, inputs)
    theirs = torch.autograd.grad((token_weight * afterwards.nll).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other)
    for one, other in zip(beforehand[:5], afterwards[:5], strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", HEADS)
def test_an_objective_agrees_with_the_same_function_of_all_outputs(
    head: str, dtype: torch.dtype
) -> None:
    def objective(rows: slice, outputs: HeadOutputs) -> Tensor:
        assert outputs.top_entropy is not None
        smoothed = outputs.nll.square() + outputs.logsumexp + outputs.mean_logit
        return (share[rows] * (smoothed - outputs.entropy) * outputs.top_entropy).sum()

    hidden, weight, labels = draw(dtype)
    share = torch.rand(N, generator=torch.Generator().manual_seed(3)).to(hidden)
    options = {**options_of(head, dtype), "top_k": 3, "entropy_gradient": True}
    inputs = leaves(hidden, weight, options)
    run = partial(linear_ce_entropy, hidden, weight, labels, chunk_size=4, **options)
    inside, outputs = run(objective=objective), run()
    expected_loss = objective(slice(None), outputs)
    assert inside.weighted_loss is not None
    torch.testing.assert_close(inside.weighted_loss, expected_loss)
    own = torch.autograd.grad(2 * inside.weighted_loss, inputs)
    for one, other in zip(own, torch.autograd.grad(2 * expected_loss, inputs), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(inside[:5], outputs[:5], strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad
    with torch.no_grad():
        without = run(objective=objective).weighted_loss
    torch.testing.assert_close(without, inside.weighted_loss.detach())


def test_autocast_keeps_the_sum_of_weight_gradients_in_full_precision() -> None:
    """One large gradient and many small ones: bf16 would lose the small ones chunk by chunk."""
    tokens = 257
    hidden = torch.full((tokens, 1), 1 / 256)
    hidden[0] = 1.0
    weight = torch.zeros(2, 1, requires_grad=True)
    labels = torch.zeros(tokens, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = linear_ce_entropy(
            hidden, weight, labels, token_weight=torch.ones(tokens), chunk_size=1
        )
    assert outputs.weighted_loss is not None
    outputs.weighted_loss.backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[-1.0], [1.0]]))


def test_weighted_loss_of_nothing_is_a_zero_attached_to_the_graph() -> None:
    hidden, weight, labels = draw(tokens=0)
    hidden.requires_grad_(), weight.requires_grad_()
    outputs = linear_ce_entropy(hidden, weight, labels, token_weight=torch.ones(0))
    assert outputs.weighted_loss is not None
    assert outputs.weighted_loss.item() == 0.0
    outputs.weighted_loss.backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_second_backward_of_a_weighted_loss_is_refused() -> None:
    hidden, weight, labels = draw()
    outputs = linear_ce_entropy(hidden.requires_grad_(), weight, labels, token_weight=torch.ones(N))
    assert outputs.weighted_loss is not None
    outputs.weighted_loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.weighted_loss.backward()


def test_entropy_gradient_is_that_of_the_formula() -> None:
    hidden, weight, labels = draw()
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    outputs = linear_ce_entropy(hidden, weight, labels, entropy_gradient=True, chunk_size=4)
    own = torch.autograd.grad((outputs.nll - 0.3 * outputs.entropy).sum(), inputs)
    logits = hidden @ weight.T
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    for one, other in zip(
        own, torch.autograd.grad((nll - 0.3 * entropy).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_an_impossible_word_has_no_share_in_loss_and_entropy() -> None:
    hidden, weight, labels = draw()
    labels[labels == 0] = 1
    bias = torch.zeros(V, dtype=torch.float64)
    bias[0] = -torch.inf
    outputs = linear_ce_entropy(hidden, weight, labels, bias=bias)
    without = linear_ce_entropy(
        hidden, weight[1:], labels.where(labels < 0, labels - 1), chunk_size=N
    )
    torch.testing.assert_close(outputs.nll, without.nll)
    torch.testing.assert_close(outputs.entropy, without.entropy)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3, 2), torch.zeros(4, 3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(1, 3, 2), torch.zeros(4, 2), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2), torch.zeros(0, 2), torch.zeros(3, dtype=torch.long)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments: tuple[Tensor, Tensor, Tensor]) -> None:
    named = r"expected (hidden \[N, D\], weight \[V, D\]|labels \[N\] for hidden)"
    with pytest.raises(ValueError, match=named):
        linear_ce_entropy(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy_gradient": True, "token_weight": torch.ones(N)}, "expected no token_weight"),
        ({"token_weight": torch.ones(N - 1)}, r"expected token_weight \[N\]"),
        ({"objective": min, "token_weight": torch.ones(N)}, "expected no token_weight beside"),
        ({"chunk_size": 0}, "chunk_size: expected an integer above 0"),
        ({"chunk_size": 2.5}, "chunk_size: expected an integer above 0"),
        ({"chunk_size": True}, "chunk_size: expected an integer above 0"),
        ({"softcap": -1.0}, "softcap: expected a finite number above 0"),
        ({"softcap": torch.inf}, "softcap: expected a finite number above 0"),
        ({"softcap": torch.nan}, "softcap: expected a finite number above 0"),
        ({"backend": "tritom"}, "expected one of auto, torch, triton, got 'tritom'"),
        ({"bias": torch.ones(V + 1)}, "expected hidden"),
        ({"lora": (torch.ones(N, 2), torch.ones(V, 3))}, "expected hidden"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_ce_entropy(*draw(torch.float32), **options)


@pytest.mark.parametrize("integer", [0, 1])
def test_integers_are_refused(integer: int) -> None:
    tensors = list(draw(torch.float32))
    tensors[integer] = tensors[integer].long()
    with pytest.raises(ValueError, match="of a floating dtype"):
        linear_ce_entropy(*tensors)


def test_the_weight_of_an_ignored_token_is_not_looked_at() -> None:
    hidden, weight, labels = draw()
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    token_weight = torch.ones(N).masked_fill(labels == -100, torch.nan)
    outputs = linear_ce_entropy(hidden, weight, labels, token_weight=token_weight)
    assert outputs.weighted_loss is not None
    torch.testing.assert_close(outputs.weighted_loss, outputs.nll.sum())
    gradients = torch.autograd.grad(outputs.weighted_loss, inputs)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("label", [-1, V])
def test_labels_outside_the_vocabulary_are_refused(label: int) -> None:
    hidden, weight, labels = draw()
    labels[2] = label
    with pytest.raises(RuntimeError, match="out of bounds"):
        linear_ce_entropy(hidden, weight, labels)


def test_under_compile_and_checkpointing_nothing_changes() -> None:
    hidden, weight, labels = draw(torch.float32)
    trunk = nn.Linear(D, D)

    def loss(x: Tensor) -> Tensor:
        hidden = torch.utils.checkpoint.checkpoint(trunk, x, use_reentrant=False)
        outputs = linear_ce_entropy(hidden, weight, labels, token_weight=torch.ones(N))
        assert outputs.weighted_loss is not None
        return outputs.weighted_loss

    plain = torch.autograd.grad(loss(hidden), list(trunk.parameters()))
    compiled = torch.compile(loss, backend="aot_eager")
    again = torch.autograd.grad(compiled(hidden), list(trunk.parameters()))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("frozen", "beforehand", "factor"),
    [(False, True, 6), (True, True, 4), (False, False, 8), (True, False, 6)],
)
def test_arithmetic_is_counted_exactly(frozen: bool, beforehand: bool, factor: int) -> None:
    hidden, weight, labels = draw(torch.float32)
    hidden.requires_grad_(), weight.requires_grad_(not frozen)

    def run() -> None:
        weights = torch.ones(N) if beforehand else None
        outputs = linear_ce_entropy(hidden, weight, labels, token_weight=weights, chunk_size=4)
        loss(outputs).backward()

    assert flops(run) == factor * N * D * V


@pytest.mark.parametrize("statistic", ["nll", "entropy", "logsumexp", "mean_logit"])
def test_an_objective_costs_as_much_as_weights(statistic: str) -> None:
    hidden, weight, labels = draw(torch.float32)
    hidden.requires_grad_(), weight.requires_grad_()

    def run() -> None:
        loss(
            linear_ce_entropy(
                hidden,
                weight,
                labels,
                objective=lambda _, outputs: getattr(outputs, statistic).square().sum(),
                entropy_gradient=True,
                chunk_size=4,
            )
        ).backward()

    assert flops(run) == 6 * N * D * V


def test_evaluation_costs_one_product() -> None:
    with torch.no_grad():
        arguments = draw(torch.float32)
        weights = torch.ones(N)
        assert flops(lambda: linear_ce_entropy(*arguments, token_weight=weights)) == 2 * N * D * V


class Memory(TorchDispatchMode):
    """Records the largest tensor that an operation returns, and the peak of live bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.alive = self.peak = 0
        self.storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                self._note(tensor.untyped_storage())
        self.peak = max(self.peak, self.alive)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.storages:
            return

        def forget(_: object) -> None:
            self.alive -= size
            del self.storages[key]

        self.alive += size
        self.storages[key] = weakref.ref(storage, forget)


def draw_large(tokens: int, vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = (torch.randn(n, 4, dtype=dtype, requires_grad=True) for n in (tokens, vocab))
    return hidden, weight, torch.zeros(tokens, dtype=torch.long)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beforehand", [True, False])
# 256 tokens are the smallest default chunk.
@pytest.mark.parametrize(("tokens", "vocab", "chunk_size"), [(64, 512, 4), (640, 65536, None)])
def test_logits_of_all_tokens_never_exist(
    tokens: int, vocab: int, chunk_size: int | None, beforehand: bool, dtype: torch.dtype
) -> None:
    arguments = draw_large(tokens, vocab, dtype)
    weights = torch.ones(tokens) if beforehand else None
    with Memory() as fused:
        loss(linear_ce_entropy(*arguments, token_weight=weights, chunk_size=chunk_size)).backward()
    assert fused.largest == (chunk_size or 256) * vocab


def test_the_naive_head_holds_the_logits_of_all_tokens() -> None:
    hidden, weight, labels = draw_large(64, 512, torch.float32)
    with Memory() as naive:
        nn.functional.cross_entropy(hidden @ weight.T, labels).backward()
    assert naive.largest == 64 * 512
    assert naive.peak >= 2 * 64 * 512 * 4


@pytest.mark.parametrize(("dtype", "chunks"), [(torch.float32, 1.3), (torch.bfloat16, 1.75)])
@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("beforehand", [True, False])
def test_memory_is_little_more_than_a_chunk(
    beforehand: bool, softcap: float | None, dtype: torch.dtype, chunks: float
) -> None:
    tokens, vocab, chunk_size = 512, 32768, 256
    arguments = draw_large(tokens, vocab, dtype)
    weights = torch.ones(tokens) if beforehand else None
    with Memory() as memory:
        outputs = linear_ce_entropy(
            *arguments, token_weight=weights, softcap=softcap, chunk_size=chunk_size
        )
        loss(outputs).backward()
    assert memory.peak < chunks * chunk_size * vocab * dtype.itemsize


def naive_pass(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = hidden @ weight.T
    with torch.no_grad():
        log_p = logits.log_softmax(-1)
        -(log_p.exp() * log_p).sum(-1)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def fused_pass(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    outputs = linear_ce_entropy(hidden, weight, labels, token_weight=torch.ones(len(labels)))
    assert outputs.weighted_loss is not None
    return outputs.weighted_loss


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def print_growth(head: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    # Large tensors must not reuse what this process has freed.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 64 * 1024)
    hidden = torch.randn(2048, 16, requires_grad=True)
    weight = torch.randn(32768, 16, requires_grad=True)
    labels = torch.zeros(2048, dtype=torch.long)
    head(hidden[:32], weight[:64], labels[:32]).backward()
    # Otherwise the peak would include the process that this one was forked from.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    head(hidden, weight, labels).backward()
    print("grew by", peak() - before)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_a_small_share_of_the_naive_head() -> None:
    naive, fused = (
        int(run_forked(print_growth, head, cwd=Path()).stdout.split()[-1])
        for head in (naive_pass, fused_pass)
    )
    logits = 2048 * 32768 * 4 // 1024
    assert naive > logits
    assert fused < 0.08 * naive
