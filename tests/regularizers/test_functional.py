import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck

from regularizers.distributions import kl_divergence, token_entropy
from regularizers.functional import (
    bernoulli,
    document_mean,
    document_sum,
    ids_tensor,
    is_document_start,
    is_lowest_share,
    shift_right,
)
from regularizers.testing import make_step


def scipy_entropy(logits: torch.Tensor) -> np.ndarray:
    shifted = logits.double().numpy()
    weights = np.exp(shifted - shifted.max(-1, keepdims=True))
    return np.asarray(scipy.stats.entropy(weights, axis=-1))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 2e-6), (torch.float16, 2e-6)],
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_entropy_matches_scipy(dtype: torch.dtype, tolerance: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(5, 7, 301, generator=generator)).to(dtype)
    entropy = token_entropy(logits)
    assert entropy.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(
        entropy.numpy(), scipy_entropy(logits), atol=tolerance, rtol=tolerance
    )


def test_entropy_of_one_hot_is_zero() -> None:
    logits = torch.full((3, 50), -torch.inf)
    logits[torch.arange(3), torch.tensor([0, 7, 49])] = 2.0
    assert token_entropy(logits).tolist() == [0.0, 0.0, 0.0]


def test_entropy_of_uniform_is_log_of_size() -> None:
    entropy = token_entropy(torch.full((1000,), 5.0)).item()
    assert entropy == pytest.approx(math.log(1000), rel=1e-6)


def test_impossible_words_do_not_count() -> None:
    logits = torch.tensor([1.0, -torch.inf, 0.5, -torch.inf])
    assert token_entropy(logits).item() == pytest.approx(token_entropy(logits[[0, 2]]).item())


def test_entropy_ignores_a_shift_of_the_logits() -> None:
    logits = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    assert token_entropy(logits + 1e3).item() == pytest.approx(token_entropy(logits).item())


def test_entropy_gradcheck() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).double()
    assert gradcheck(token_entropy, logits.requires_grad_())


@pytest.mark.parametrize("low", [-torch.inf, -1000.0])
def test_entropy_gradient_is_finite_where_probabilities_vanish(low: float) -> None:
    logits = torch.tensor([0.0, low, 1.0, low], requires_grad=True)
    token_entropy(logits).backward()
    possible = torch.tensor([0.0, 1.0], requires_grad=True)
    token_entropy(possible).backward()
    assert logits.grad is not None
    assert possible.grad is not None
    torch.testing.assert_close(logits.grad[[0, 2]], possible.grad)
    assert logits.grad[[1, 3]].tolist() == [0.0, 0.0]


def test_shift_right_keeps_dtype_and_trailing_dimensions() -> None:
    values = torch.arange(12, dtype=torch.bfloat16).view(2, 3, 2)
    shifted = shift_right(values, -1.0)
    assert shifted.dtype == torch.bfloat16
    assert shifted.tolist() == [
        [[-1, -1], [0, 1], [2, 3]],
        [[-1, -1], [6, 7], [8, 9]],
    ]


def test_document_starts() -> None:
    document_ids = torch.tensor([[4, 4, 9, 9, -1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]])
    assert is_document_start(document_ids).int().tolist() == [
        [1, 0, 1, 0, 1],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("draw", range(5))
def test_document_means_are_those_of_a_loop(draw: int) -> None:
    step = make_step(4, 30, draw=draw)
    values = torch.rand(4, 30, dtype=torch.float64)
    means = document_mean(values, step.valid, step.document_ids)
    sums = document_sum(step.input_ids, step.document_ids)
    for row, place in (step.document_ids >= 0).nonzero().tolist():
        own = step.document_ids[row] == step.document_ids[row, place]
        counted = values[row, own & step.valid[row]].numpy()
        assert means[row, place] == pytest.approx(counted.mean() if len(counted) else 0)
        assert sums[row, place] == step.input_ids[row, own].sum()


def test_document_mean_gradcheck() -> None:
    step = make_step(2, 12)
    values = torch.rand(2, 12, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda each: document_mean(each, step.valid, step.document_ids), values)


def lowest(
    scores: torch.Tensor, share: float, eligible: torch.Tensor | None = None
) -> torch.Tensor:
    eligible = torch.ones_like(scores, dtype=torch.bool) if eligible is None else eligible
    groups = torch.zeros_like(scores, dtype=torch.long)
    return is_lowest_share(scores, eligible, groups, share)


def test_share_zero_marks_none_and_share_one_all_eligible() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    eligible = torch.tensor([[True, False, True]])
    assert not lowest(scores, 0.0, eligible).any()
    assert torch.equal(lowest(scores, 1.0, eligible), eligible)


@pytest.mark.parametrize("share", [0.01, 0.07, 0.1, 0.14, 0.29, 0.3, 1 / 3, 0.57, 0.58, 0.7, 0.99])
def test_count_is_the_exact_floor(share: float) -> None:
    for size in (1, 2, 3, 10, 99, 100, 300, 700):
        marked = lowest(torch.rand(1, size, generator=torch.Generator().manual_seed(size)), share)
        exact = Fraction(1, 3) if share == 1 / 3 else Fraction(str(share))
        assert int(marked.sum()) == math.floor(exact * size)


def test_no_tokens_and_no_eligible_tokens() -> None:
    assert lowest(torch.empty(0, 4), 0.5).shape == (0, 4)
    scores = torch.rand(2, 4)
    assert not lowest(scores, 1.0, torch.zeros(2, 4, dtype=torch.bool)).any()


def test_infinite_and_nan_scores() -> None:
    scores = torch.tensor([[torch.inf, -torch.inf, 0.0, torch.inf, torch.nan]])
    eligible = torch.tensor([[True, True, True, True, False]])
    assert lowest(scores, 0.5, eligible).int().tolist() == [[0, 1, 1, 0, 0]]
    assert lowest(scores, 0.75, eligible).int().tolist() == [[1, 1, 1, 0, 0]]


def test_ineligible_tokens_of_infinite_score_do_not_take_a_place() -> None:
    scores = torch.tensor([[torch.inf, torch.inf, -torch.inf]])
    eligible = torch.tensor([[False, True, False]])
    assert lowest(scores, 1.0, eligible).int().tolist() == [[0, 1, 0]]


def test_ties_go_to_the_earlier_position() -> None:
    marked = lowest(torch.zeros(2, 500), 0.5)
    assert marked[0].all()
    assert not marked[1].any()


def test_integer_scores() -> None:
    assert lowest(torch.tensor([[3, 1, 2, 0]]), 0.5).int().tolist() == [[0, 1, 0, 1]]


def test_groups_need_be_neither_contiguous_nor_complete() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0, 5.0, 6.0, 7.0]])
    groups = torch.tensor([[7, 2, 7, 2], [2, 7, 2, 7]])
    marked = is_lowest_share(scores, torch.ones_like(groups, dtype=torch.bool), groups, 0.5)
    assert marked.int().tolist() == [[1, 0, 1, 1], [1, 0, 0, 0]]


def test_arguments_are_left_alone() -> None:
    scores, eligible = torch.rand(2, 6), torch.rand(2, 6) < 0.5
    groups = torch.zeros(2, 6, dtype=torch.long)
    copies = scores.clone(), eligible.clone(), groups.clone()
    is_lowest_share(scores, eligible, groups, 0.5)
    assert all(map(torch.equal, (scores, eligible, groups), copies))


def test_bernoulli_limits_and_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    assert not bernoulli([10_000], 0.0, generator).any()
    assert bernoulli([10_000], 1.0, generator).all()
    hits = int(bernoulli([100_000], 0.3, generator).sum())
    assert scipy.stats.binomtest(hits, 100_000, 0.3).pvalue > 1e-4


def test_ids_tensor_is_kept_and_int64_even_if_empty() -> None:
    device = torch.device("cpu")
    assert ids_tensor((), device).dtype == torch.int64
    assert ids_tensor((1, 2), device) is ids_tensor((1, 2), device)


def test_words_that_both_exclude_change_no_gradient_of_the_divergence() -> None:
    logits = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([logits, torch.full((2, 5, 1), -torch.inf)], dim=-1)
    gradients = []
    for given in (logits, whole):
        given.requires_grad_()
        log_p, log_q = given.log_softmax(-1)
        kl_divergence(log_p, log_q).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[1][..., :7], gradients[0])
    assert not gradients[1][..., 7].any()
