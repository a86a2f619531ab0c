import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from lit_entrodrop.entropy.buckets import EntropyBuckets, bucket_of
from lit_entrodrop.evaluation.metrics.token_metrics import TokenMetrics
from regularizers import Outputs

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 8, 10, generator=GENERATOR)
LABELS = torch.randint(10, (3, 8), generator=GENERATOR)
VALID = torch.rand(3, 8, generator=GENERATOR) < 0.7
ENTROPY = torch.rand(3, 8, generator=GENERATOR)
EDGES = ENTROPY.flatten().sort().values[[7, 15]]
NAMES = ("low", "mid", "high")


def outputs_of(nll: Tensor, correct: Tensor) -> Outputs:
    unused = torch.full_like(nll, torch.nan)
    return Outputs(nll, unused, unused, unused, correct)


def scores(rows: slice = slice(None)) -> tuple[Outputs, Tensor]:
    nll = torch.nn.functional.cross_entropy(
        LOGITS[rows].transpose(1, 2), LABELS[rows], reduction="none"
    )
    return outputs_of(nll, LOGITS[rows].argmax(-1) == LABELS[rows]), VALID[rows]


def nll_of(chosen: Tensor) -> float:
    nll = -scipy.special.log_softmax(LOGITS.double().numpy(), axis=-1)
    picked = np.take_along_axis(nll, LABELS.numpy()[..., None], -1)[..., 0]
    return float(picked[chosen.numpy()].mean())


def test_means_are_over_valid_tokens() -> None:
    metrics = TokenMetrics(NAMES)
    metrics.update(*scores())
    computed = metrics.compute()
    assert set(computed) == {"loss", "perplexity", "accuracy"}
    assert computed["loss"].item() == pytest.approx(nll_of(VALID), rel=1e-6)
    assert computed["perplexity"].item() == pytest.approx(np.exp(nll_of(VALID)), rel=1e-6)
    hits = (LOGITS.argmax(-1) == LABELS)[VALID].double().mean()
    assert computed["accuracy"].item() == pytest.approx(hits.item())
    assert all(value.dtype == torch.float32 for value in computed.values())


def test_buckets_are_split_at_the_edges() -> None:
    metrics = TokenMetrics(NAMES)
    metrics.update(*scores(), ENTROPY, EDGES)
    computed = metrics.compute()
    low, high = EDGES[0] >= ENTROPY, EDGES[1] < ENTROPY
    for name, members in zip(NAMES, (low, ~low & ~high, high), strict=True):
        expected = nll_of(VALID & members)
        assert computed[f"loss_{name}_entropy"].item() == pytest.approx(expected, rel=1e-6)
        perplexity = computed[f"perplexity_{name}_entropy"].item()
        assert perplexity == pytest.approx(np.exp(expected), rel=1e-6)
        hits = (LOGITS.argmax(-1) == LABELS)[VALID & members].double().mean()
        assert computed[f"accuracy_{name}_entropy"].item() == pytest.approx(hits.item())


def test_unknown_entropies_are_in_no_bucket() -> None:
    metrics = TokenMetrics(NAMES)
    unknown = ENTROPY.masked_fill(LABELS < 5, torch.nan)
    metrics.update(*scores(), unknown, EDGES)
    assert metrics.tokens[0] == VALID.sum()
    assert metrics.tokens[1:].sum() == (VALID & (LABELS >= 5)).sum()
    assert bucket_of(unknown, EDGES).min() == -1


def test_uneven_batches_count_by_token() -> None:
    whole, parts = TokenMetrics(NAMES), TokenMetrics(NAMES)
    whole.update(*scores(), ENTROPY, EDGES)
    for rows in (slice(0, 1), slice(1, 3)):
        parts.update(*scores(rows), ENTROPY[rows], EDGES)
    torch.testing.assert_close(parts.compute(), whole.compute())


def test_reset_forgets() -> None:
    metrics = TokenMetrics(NAMES)
    metrics.update(*scores(), ENTROPY, EDGES)
    metrics.compute()
    metrics.reset()
    metrics.update(*scores(slice(0, 1)))
    only = torch.zeros_like(VALID)
    only[0] = VALID[0]
    assert metrics.compute()["loss"].item() == pytest.approx(nll_of(only), rel=1e-6)
    assert "loss_low_entropy" not in metrics.compute()


def test_no_token_gives_nan() -> None:
    metrics = TokenMetrics(NAMES)
    outputs, valid = scores()
    metrics.update(outputs, torch.zeros_like(valid))
    assert all(value.isnan() for value in metrics.compute().values())


def test_millions_of_tokens_keep_their_precision() -> None:
    metrics = TokenMetrics(())
    nll = torch.full((1000, 1000), 2.1)
    every = torch.ones_like(nll, dtype=torch.bool)
    for _ in range(20):
        metrics.update(outputs_of(nll, every), every)
    assert metrics.sums[0].item() == pytest.approx(nll[0, 0].item() * 2e7, rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"quantiles": []},
        {"quantiles": [0.6, 0.3]},
        {"quantiles": [0.5, 0.5]},
        {"quantiles": [0.0]},
        {"quantiles": [1.0]},
        {"edges": [2.0, 1.0]},
        {"edges": [-1.0]},
        {"edges": [float("nan")]},
    ],
)
def test_buckets_out_of_order_are_refused(settings: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=r"entropy_buckets\.\w+: expected increasing numbers"):
        EntropyBuckets(**settings)


def test_buckets_are_named_by_their_number() -> None:
    assert EntropyBuckets(quantiles=[0.5]).names == ("low", "high")
    assert EntropyBuckets(edges=[1.0, 2.0, 3.0]).names == tuple(f"bucket_{n}" for n in range(1, 5))
