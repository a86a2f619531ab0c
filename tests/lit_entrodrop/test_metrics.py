import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from lit_entrodrop.metrics import TokenMetrics
from regularizers import Outputs

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 8, 10, generator=GENERATOR)
LABELS = torch.randint(10, (3, 8), generator=GENERATOR)
VALID = torch.rand(3, 8, generator=GENERATOR) < 0.7
ENTROPY = torch.rand(3, 8, generator=GENERATOR)


def outputs(rows: slice = slice(None)) -> Outputs:
    nll = torch.nn.functional.cross_entropy(
        LOGITS[rows].transpose(1, 2), LABELS[rows], reduction="none"
    )
    return Outputs(nll, ENTROPY[rows], nll, nll, LOGITS[rows].argmax(-1) == LABELS[rows])


def nll_of(chosen: Tensor) -> float:
    nll = -scipy.special.log_softmax(LOGITS.numpy(), axis=-1)
    picked = np.take_along_axis(nll, LABELS.numpy()[..., None], -1)[..., 0]
    return float(picked[chosen.numpy()].mean())


def test_means_are_over_valid_tokens() -> None:
    metrics = TokenMetrics()
    metrics.update(outputs(), VALID)
    computed = metrics.compute()
    assert set(computed) == {"loss", "perplexity", "accuracy"}
    assert computed["loss"].item() == pytest.approx(nll_of(VALID), rel=1e-6)
    assert computed["perplexity"].item() == pytest.approx(np.exp(nll_of(VALID)), rel=1e-6)
    hits = (LOGITS.argmax(-1) == LABELS)[VALID].double().mean()
    assert computed["accuracy"].item() == pytest.approx(hits.item())
    assert all(value.dtype == torch.float32 for value in computed.values())


def test_groups_are_split_at_the_threshold() -> None:
    metrics = TokenMetrics()
    threshold = float(ENTROPY[0, 0])
    metrics.update(outputs(), VALID, ENTROPY, threshold)
    computed = metrics.compute()
    low = threshold >= ENTROPY
    assert computed["loss_low_entropy"].item() == pytest.approx(nll_of(VALID & low), rel=1e-6)
    assert computed["loss_high_entropy"].item() == pytest.approx(nll_of(VALID & ~low), rel=1e-6)


def test_uneven_batches_count_by_token() -> None:
    whole, parts = TokenMetrics(), TokenMetrics()
    whole.update(outputs(), VALID, ENTROPY, 0.5)
    for rows in (slice(0, 1), slice(1, 3)):
        parts.update(outputs(rows), VALID[rows], ENTROPY[rows], 0.5)
    torch.testing.assert_close(parts.compute(), whole.compute())


def test_reset_forgets() -> None:
    metrics = TokenMetrics()
    metrics.update(outputs(), VALID, ENTROPY, 0.5)
    metrics.compute()
    metrics.reset()
    metrics.update(outputs(slice(0, 1)), VALID[:1])
    only = torch.zeros_like(VALID)
    only[0] = VALID[0]
    assert metrics.compute()["loss"].item() == pytest.approx(nll_of(only), rel=1e-6)
    assert "loss_low_entropy" not in metrics.compute()


def test_no_token_gives_nan() -> None:
    metrics = TokenMetrics()
    metrics.update(outputs(), torch.zeros_like(VALID))
    assert all(value.isnan() for value in metrics.compute().values())


def test_millions_of_tokens_keep_their_precision() -> None:
    metrics = TokenMetrics()
    nll = torch.full((1000, 1000), 2.1)
    every = torch.ones_like(nll, dtype=torch.bool)
    for _ in range(20):
        metrics.update(Outputs(nll, nll, nll, nll, every), every)
    assert metrics.nll.item() == pytest.approx(nll[0, 0].item() * 2e7, rel=1e-12)
