import math
from dataclasses import replace
from itertools import product

import pytest
import scipy.stats
import torch

from regularizers import EntroDrop, Linear, Regularizers, Sigmoid
from regularizers.testing.steps import make_step
from tests.regularizers.reference import dropped_inputs, expected_candidates, places

SCOPES = ["document", "sequence", "batch", "corpus"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("quantile", [0.07, 0.29, 0.5, 0.75, 1.0])
def test_candidates_are_exactly_the_lowest_share(scope: str, quantile: float) -> None:
    regularizer = EntroDrop(quantile=quantile, curriculum=1.0, scope=scope)  # type: ignore[arg-type]
    seen = 0
    for draw, (rows, length) in enumerate(product([1, 2, 5], [1, 2, 3, 17, 90])):
        step = make_step(rows, length, draw=draw)
        expected = expected_candidates(step, quantile, scope)
        assert places(dropped_inputs(regularizer, step)) == expected
        seen += len(expected)
    assert seen > 0


@pytest.mark.parametrize("scope", SCOPES)
def test_candidates_without_ties(scope: str) -> None:
    regularizer = EntroDrop(quantile=0.4, curriculum=1.0, scope=scope)  # type: ignore[arg-type]
    for draw in range(10):
        step = make_step(3, 40, draw=draw)
        entropy = 3 * torch.rand(3, 40, generator=torch.Generator().manual_seed(draw))
        step = replace(step, entropy=entropy)
        expected = expected_candidates(step, 0.4, scope)
        assert places(dropped_inputs(regularizer, step)) == expected


def test_documents_may_carry_any_numbers() -> None:
    step = make_step(3, 40)
    far = torch.where(step.document_ids < 0, -1, step.document_ids + 10_000_000)
    regularizer = EntroDrop(curriculum=1.0, scope="document")
    expected = dropped_inputs(regularizer, step)
    assert torch.equal(dropped_inputs(regularizer, replace(step, document_ids=far)), expected)


def test_half_precision_entropies_select_the_same_tokens() -> None:
    step = make_step(3, 40)
    assert step.entropy is not None
    half = replace(step, entropy=step.entropy.half())
    for scope in SCOPES:
        regularizer = EntroDrop(curriculum=1.0, scope=scope)  # type: ignore[arg-type]
        assert torch.equal(dropped_inputs(regularizer, half), dropped_inputs(regularizer, step))


def test_defaults_are_the_documented_reading() -> None:
    regularizer = EntroDrop()
    assert regularizer.requirements.entropy == "last_epoch"
    assert regularizer.replacement == "random_token"
    step = make_step(4, 50)
    assert places(dropped_inputs(regularizer, step)) <= expected_candidates(step, 0.5, "sequence")
    for progress in (0.0, 0.3, 0.5, 1.0):
        gamma = 0.4 / (1 + math.exp(-10 * (progress - 0.5)))
        assert regularizer.curriculum(progress) == pytest.approx(gamma)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_realized_rate_is_quantile_times_gamma(progress: float) -> None:
    quantile, gamma = 0.6, Sigmoid(max=0.8)(progress)
    regularizer = EntroDrop(quantile=quantile, curriculum=Sigmoid(max=0.8))
    step = make_step(4, 60, progress=progress)
    candidates = len(expected_candidates(step, quantile, "sequence"))
    steps = 300
    hits = sum(
        int(dropped_inputs(regularizer, replace(step, global_step=number)).sum())
        for number in range(steps)
    )
    assert scipy.stats.binomtest(hits, candidates * steps, gamma).pvalue > 1e-4


def test_each_candidate_is_dropped_independently_at_the_same_rate() -> None:
    step = make_step(2, 40)
    regularizer = EntroDrop(curriculum=0.3)
    masks = torch.stack(
        [dropped_inputs(regularizer, replace(step, global_step=number)) for number in range(2000)]
    )
    candidates = torch.zeros_like(masks[0])
    for row, position in expected_candidates(step, 0.5, "sequence"):
        candidates[row, position] = True
    draws = masks[:, candidates].double()
    limit = 5 * math.sqrt(0.3 * 0.7 / 2000)
    assert (draws.mean(0) - 0.3).abs().max() < limit
    correlation = torch.corrcoef(draws.T) - torch.eye(draws.shape[1])
    assert correlation.abs().max() < 5 / math.sqrt(2000)
    assert not masks[:, ~candidates].any()


def test_logged_drop_rate_is_the_share_of_alterable_tokens() -> None:
    step = make_step(4, 60)
    regularizers = Regularizers([EntroDrop(curriculum=Linear(end=0.8), replacement="zero")])
    zeroed = regularizers.on_embeddings(torch.ones(4, 60, 2), step).eq(0).all(-1)
    rate = int(zeroed.sum()) / int(step.alterable.sum())
    assert rate > 0.05
    assert step.metrics["entro_drop/drop_rate"].item() == pytest.approx(rate)
    assert step.metrics["entro_drop/strength"].item() == pytest.approx(0.4)


@pytest.mark.parametrize("scope", SCOPES)
def test_blank_entropies_drop_nothing(scope: str) -> None:
    step = make_step(3, 40)
    step = replace(step, entropy=torch.full((3, 40), torch.nan))
    regularizer = EntroDrop(curriculum=1.0, scope=scope)  # type: ignore[arg-type]
    assert not dropped_inputs(regularizer, step).any()


def test_entropies_known_in_part_rank_among_themselves() -> None:
    step = make_step(2, 40)
    assert step.entropy is not None
    known = step.entropy.clone()
    known[0] = torch.nan
    step = replace(step, entropy=known)
    mask = dropped_inputs(EntroDrop(curriculum=1.0), step)
    assert not mask[0].any()
    assert places(mask) == expected_candidates(step, 0.5, "sequence")
    assert mask[1].any()


def test_corpus_scope_without_quantiles_says_what_to_do() -> None:
    step = make_step(corpus_entropy=None)
    with pytest.raises(ValueError, match=r"corpus_entropy.*use scope 'sequence'"):
        dropped_inputs(EntroDrop(scope="corpus"), step)


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.01, math.nan])
def test_quantile_outside_its_range_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="EntroDrop quantile"):
        EntroDrop(quantile=quantile)
