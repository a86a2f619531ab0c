from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import scipy.stats
import torch

from regularizers import EntroDrop, RandomTokenDropout, Sigmoid, TrainingStep
from regularizers.testing.steps import make_step
from tests.regularizers.reference import dropped_inputs, expected_candidates, places

SCOPES = ["document", "sequence", "batch", "corpus"]


def fully_known(rows: int, length: int, draw: int = 0) -> TrainingStep:
    """Return a step in which the entropy of every predicted token is known."""
    step = make_step(rows, length, draw=draw)
    entropy = torch.rand(rows, length, generator=torch.Generator().manual_seed(draw))
    return replace(step, entropy=entropy)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("quantile", [0.29, 0.5, 1.0])
def test_high_entropy_candidates(scope: str, quantile: float) -> None:
    settings: dict[str, Any] = {"select": "high_entropy", "scope": scope, "quantile": quantile}
    regularizer = RandomTokenDropout(curriculum=1.0, **settings)
    for draw, (rows, length) in enumerate(product([1, 3], [2, 17, 60])):
        step = make_step(rows, length, draw=draw)
        expected = expected_candidates(step, quantile, scope, "high_entropy")
        assert places(dropped_inputs(regularizer, step)) == expected


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("target", ["input", "loss", "both"])
@pytest.mark.parametrize("replacement", ["zero", "random_token"])
def test_low_entropy_is_bit_identical_to_entrodrop(
    scope: str, target: str, replacement: str
) -> None:
    settings: dict[str, Any] = {
        "quantile": 0.6,
        "curriculum": Sigmoid(max=0.9),
        "scope": scope,
        "target": target,
        "replacement": replacement,
    }
    entrodrop = EntroDrop(**settings)
    control = RandomTokenDropout(select="low_entropy", **settings)
    embeddings = torch.randn(3, 40, 4)
    for number in range(20):
        step = make_step(3, 40, draw=number, global_step=number)
        ids = step.input_ids
        assert torch.equal(entrodrop.on_input_ids(ids, step), control.on_input_ids(ids, step))
        assert torch.equal(
            entrodrop.on_embeddings(embeddings, step), control.on_embeddings(embeddings, step)
        )
        assert torch.equal(
            entrodrop.drop_mask(step, step.generator()), control.drop_mask(step, step.generator())
        )


@pytest.mark.parametrize("scope", ["document", "sequence", "batch"])
@pytest.mark.parametrize("select", ["random", "high_entropy"])
def test_candidates_are_as_many_as_those_of_entrodrop(scope: str, select: str) -> None:
    settings: dict[str, Any] = {"quantile": 0.4, "curriculum": 1.0, "scope": scope}
    for draw in range(20):
        step = fully_known(3, 40, draw)
        entrodrop = dropped_inputs(EntroDrop(**settings), step)
        control = dropped_inputs(RandomTokenDropout(select=select, **settings), step)  # type: ignore[arg-type]
        assert torch.equal(entrodrop.sum(1), control.sum(1)) or scope == "batch"
        assert entrodrop.sum() == control.sum()


def test_counts_have_the_distribution_of_entrodrop() -> None:
    settings: dict[str, Any] = {"quantile": 0.5, "curriculum": 0.4}
    entrodrop, control = EntroDrop(**settings), RandomTokenDropout(**settings)
    step = fully_known(3, 40)
    candidates = len(expected_candidates(step, 0.5, "sequence"))
    counts = []
    for regularizer in (entrodrop, control):
        for number in range(600):
            # Other ranks, so that both draw different numbers.
            own = replace(step, global_step=number, rank=int(regularizer is control))
            counts.append(int(dropped_inputs(regularizer, own).sum()))
    matched = scipy.stats.ks_2samp(counts[:600], counts[600:])
    assert matched.pvalue > 1e-3
    for hits in (sum(counts[:600]), sum(counts[600:])):
        assert scipy.stats.binomtest(hits, 600 * candidates, 0.4).pvalue > 1e-4


def test_random_candidates_are_uniform_over_eligible_tokens_and_redrawn() -> None:
    step = fully_known(1, 40)
    regularizer = RandomTokenDropout(curriculum=1.0, quantile=0.5)
    hits = sum(
        dropped_inputs(regularizer, replace(step, global_step=number)).double()
        for number in range(2000)
    )
    assert isinstance(hits, torch.Tensor)
    eligible = torch.zeros(1, 40, dtype=torch.bool)
    for row, position in expected_candidates(step, 1.0, "sequence"):
        eligible[row, position] = True
    assert not hits[~eligible].any()
    share = int(0.5 * int(eligible.sum())) / int(eligible.sum())
    assert ((hits[eligible] / 2000 - share).abs() < 5 * (share * (1 - share) / 2000) ** 0.5).all()


def test_random_corpus_scope_has_the_rate() -> None:
    step = fully_known(4, 60)
    regularizer = RandomTokenDropout(curriculum=0.5, quantile=0.6, scope="corpus")
    eligible = len(expected_candidates(step, 1.0, "sequence"))
    hits = sum(
        int(dropped_inputs(regularizer, replace(step, global_step=number)).sum())
        for number in range(300)
    )
    assert scipy.stats.binomtest(hits, eligible * 300, 0.3).pvalue > 1e-4


def test_random_selection_needs_no_entropy() -> None:
    regularizer = RandomTokenDropout(curriculum=1.0)
    assert regularizer.requirements.entropy is None
    step = make_step(entropy=None)
    mask = dropped_inputs(regularizer, step)
    assert mask.any()
    assert not mask[~step.alterable].any()
    assert RandomTokenDropout(select="high_entropy").requirements.entropy == "last_epoch"
