"""On a Hopper GPU where Liger can fuse, else through the PyTorch loop that it runs elsewhere.

Importing Liger selects its kernels for the whole process, which the other tests do not mind.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.model.head import liger, linear_ce_entropy
from lit_entrodrop.model.head.liger import linear_ce_entropy_liger

needs_liger = pytest.mark.skipif(
    liger._missing_package() is not None, reason=str(liger._missing_package())
)
FUSED = torch.cuda.is_available() and liger.obstacle("cuda") is None
DEVICE = "cuda" if FUSED else "cpu"
needs_fused = pytest.mark.skipif(
    not FUSED, reason="Liger's fused head needs a GPU of compute capability 9.0 and CUTLASS"
)
# More tokens than Liger takes at once, on Hopper and elsewhere.
N, D, V = 1100, 24, 131


def draw(dtype: torch.dtype, ignored: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator)
    weight = torch.randn(V, D, generator=generator)
    labels = torch.randint(V, (N,), generator=generator)
    if ignored:
        labels[::5] = -100
    leaves = [leaf.to(DEVICE, dtype).requires_grad_() for leaf in (hidden, weight)]
    return leaves[0], leaves[1], labels.to(DEVICE)


def expected(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.T
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none"), entropy


def errors(dtype: torch.dtype) -> dict[str, float]:
    """Return how far each result is from float64, the gradients relative to their norm."""
    hidden, weight, labels = draw(dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    nll, entropy = linear_ce_entropy_liger(hidden, weight, labels)
    exact_nll, exact_entropy = expected(exact[0], exact[1], labels)
    # A weight for each token, since older functions of Liger applied the first to all.
    token_weights = torch.linspace(-1, 2, N, device=DEVICE)
    gradients = torch.autograd.grad((nll * token_weights).sum(), (hidden, weight))
    exact_gradients = torch.autograd.grad((exact_nll * token_weights).sum(), exact)
    pairs = zip(("hidden", "weight"), gradients, exact_gradients, strict=True)
    return {
        "nll": float((nll - exact_nll).detach().abs().max()),
        "entropy": float((entropy - exact_entropy).detach().abs().max()),
        **{name: float((one - other).norm() / other.norm()) for name, one, other in pairs},
    }


@needs_liger
@pytest.mark.skipif(FUSED, reason="Liger's fused head takes bf16 alone")
def test_agrees_with_float64_in_fp32() -> None:
    assert max(errors(torch.float32).values()) < 2e-5


@needs_liger
def test_agrees_with_float64_in_bf16() -> None:
    found = errors(torch.bfloat16)
    assert found["nll"] < 0.15
    assert found["entropy"] < 0.08
    assert found["hidden"] < 0.01
    assert found["weight"] < 0.02


@needs_liger
@needs_fused
def test_fused_head_of_many_words() -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    hidden, weight = (
        torch.randn(rows, 256, generator=generator, device=DEVICE) / 16 for rows in (3000, 50257)
    )
    labels = torch.arange(3000, device=DEVICE)
    nll, entropy = linear_ce_entropy_liger(hidden.bfloat16(), weight.bfloat16(), labels)
    exact = expected(hidden.bfloat16().double(), weight.bfloat16().double(), labels)
    torch.testing.assert_close(nll.double(), exact[0], atol=0.01, rtol=0)
    torch.testing.assert_close(entropy.double(), exact[1], atol=0.03, rtol=0)


@needs_liger
def test_outputs() -> None:
    hidden, weight, labels = draw(torch.bfloat16)
    nll, entropy = linear_ce_entropy_liger(hidden, weight, labels)
    assert nll.dtype == entropy.dtype == torch.float32
    assert nll.requires_grad
    assert not entropy.requires_grad
    assert (nll[labels == -100] == 0).all()
    assert (entropy[labels == -100] > 0).all()
    (hidden_gradient,) = torch.autograd.grad(nll.sum(), hidden)
    assert (hidden_gradient[labels == -100] == 0).all()
    assert (hidden_gradient[labels != -100] != 0).any(-1).all()


@needs_liger
def test_all_labels_ignored() -> None:
    hidden, weight, labels = draw(torch.bfloat16)
    nll, _ = linear_ce_entropy_liger(hidden, weight, torch.full_like(labels, -100))
    gradients = torch.autograd.grad(nll.sum(), (hidden, weight))
    assert all((gradient == 0).all() for gradient in gradients)


@needs_liger
def test_no_tokens() -> None:
    hidden, weight, labels = draw(torch.bfloat16)
    nll, entropy = linear_ce_entropy_liger(hidden[:0], weight, labels[:0])
    assert nll.shape == entropy.shape == (0,)
    gradients = torch.autograd.grad(nll.sum(), (hidden, weight))
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize(
    "option", [{"bias": torch.zeros(V)}, {"softcap": 30.0}, {"z_loss": 1e-4}], ids=str
)
def test_what_it_does_not_offer_is_refused(option: dict[str, Any]) -> None:
    hidden, weight, labels = draw(torch.bfloat16)
    ones = torch.ones(len(labels))
    with pytest.raises(ValueError, match="'liger' has no label_smoothing, z_loss, bias"):
        linear_ce_entropy(hidden, weight, labels, token_weight=ones, backend="liger", **option)


@needs_liger
def test_weights_of_ignored_labels_are_not_looked_at() -> None:
    hidden, weight, labels = draw(torch.bfloat16)
    ones = torch.ones(len(labels))
    unlooked = ones.masked_fill(labels == -100, torch.nan)
    losses = [
        linear_ce_entropy(hidden, weight, labels, token_weight=each, backend="liger").weighted_loss
        for each in (ones, unlooked)
    ]
    assert torch.equal(*losses)


class TestObstacle:
    """What stands in the way is named, in the order in which a user can remove it."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(liger, "version", lambda _: "0.8.10")
        monkeypatch.setattr(liger, "find_spec", lambda _: object())
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    def test_none_on_hopper(self) -> None:
        assert liger.obstacle("cuda") is None

    def test_other_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "9.0" in str(liger.obstacle("cpu"))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (10, 0))
        assert "9.0" in str(liger.obstacle("cuda"))

    def test_other_dtypes(self) -> None:
        assert "bf16" in str(liger.obstacle("cuda", torch.float32))

    def test_no_cutlass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(liger, "find_spec", lambda _: None)
        assert "cutedsl" in str(liger.obstacle("cuda"))

    def test_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(liger, "version", lambda _: "0.8.2")
        assert "too old" in str(liger.obstacle("cuda"))
        with pytest.raises(ValueError, match="too old"):
            linear_ce_entropy_liger(*draw(torch.bfloat16))

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(_: str) -> str:
            raise liger.PackageNotFoundError

        monkeypatch.setattr(liger, "version", version)
        assert "pip install" in str(liger.obstacle("cuda"))
