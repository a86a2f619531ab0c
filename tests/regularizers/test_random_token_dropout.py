import hashlib
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


# Masks of five steps before there was a guidance, when `select` was low_entropy, random and
# high_entropy.
FORMER_MASKS = {
    (-1.0, "document"): "c143bce158aa",
    (-1.0, "sequence"): "376826d96585",
    (-1.0, "batch"): "ec59da55b1d5",
    (-1.0, "corpus"): "5b52872fd94d",
    (0.0, "document"): "730824719981",
    (0.0, "sequence"): "f1451a376d91",
    (0.0, "batch"): "922a740b0ada",
    (0.0, "corpus"): "d585dbb20431",
    (1.0, "document"): "764589cc2bb3",
    (1.0, "sequence"): "8a4445455fac",
    (1.0, "batch"): "455f7f8a7606",
    (1.0, "corpus"): "bf636b839f0d",
}


@pytest.mark.parametrize(("guidance", "scope"), FORMER_MASKS)
def test_masks_at_the_ends_and_at_chance_are_the_former_ones(guidance: float, scope: str) -> None:
    regularizer = RandomTokenDropout(0.7, quantile=0.6, scope=scope, guidance=guidance)  # type: ignore[arg-type]
    digest = hashlib.blake2b(digest_size=6)
    for number in range(5):
        step = make_step(3, 40, draw=number, global_step=number)
        digest.update(regularizer.drop_mask(step, step.generator()).numpy().tobytes())
    assert digest.hexdigest() == FORMER_MASKS[guidance, scope]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("target", ["input", "loss"])
def test_guidance_raises_the_rank_of_the_dropped_tokens_and_not_their_number(
    scope: str, target: str
) -> None:
    # The first column is of document starts, and all other entropies differ.
    documents = torch.zeros(20, 101, dtype=torch.long)
    ranks = torch.rand(20, 101, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1)
    ids = torch.full_like(documents, 3)
    step = make_step(
        20, 101, input_ids=ids, labels=ids, document_ids=documents, entropy=(ranks + 0.5) / 101,
        corpus_entropy=torch.linspace(0, 1, 1001),
    )  # fmt: skip
    means, counts = [], []
    for guidance in (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0):
        regularizer = EntroDrop(
            guidance=guidance, quantile=0.5, curriculum=1.0, scope=scope, target=target  # type: ignore[arg-type]
        )  # fmt: skip
        if target == "input":
            dropped = dropped_inputs(regularizer, step)
        else:
            dropped = regularizer.on_token_weight(step.valid.float(), step).eq(0) & step.valid
        assert step.entropy is not None
        means.append(step.entropy[dropped].mean().item())
        counts.append(int(dropped.sum()))
    assert means == sorted(means)
    # At ±1 the halves, at 0 all; at ±1/2 the density of the candidates' ranks r is 2 (1 − r).
    assert means[::2] == pytest.approx([1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4], abs=0.015)
    if scope == "corpus":
        assert counts == pytest.approx([1000] * 9, abs=80)
    else:
        assert set(counts) == {1000}


def test_guidance_between_the_points_redraws_the_candidates_in_each_step() -> None:
    step = fully_known(2, 60)
    regularizer = EntroDrop(guidance=-0.5, curriculum=1.0)
    masks = [dropped_inputs(regularizer, replace(step, global_step=n)) for n in range(5)]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 5
    assert torch.equal(dropped_inputs(regularizer, step), masks[0])


def test_names_of_a_guidance() -> None:
    for select, guidance in {"low_entropy": -1, "random": 0, "high_entropy": 1}.items():
        assert RandomTokenDropout(select=select).guidance == guidance  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"guidance: expected 1, which select 'high_entropy'"):
        RandomTokenDropout(select="high_entropy", guidance=0.5)
    with pytest.raises(ValueError, match="RandomTokenDropout select: expected one of random"):
        RandomTokenDropout(select="low")  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance", [-1.01, 2.0, float("nan")])
def test_guidance_out_of_range(guidance: float) -> None:
    with pytest.raises(ValueError, match=r"EntroDrop guidance: expected a number from -1"):
        EntroDrop(guidance=guidance)


def test_only_chance_needs_no_entropies() -> None:
    for guidance in (-1.0, -0.1, 0.1, 1.0):
        assert EntroDrop(guidance=guidance, entropy_source="online").requirements.entropy
    assert (
        EntroDrop(guidance=0.0, scope="corpus", entropy_source="online").requirements.entropy
        is None
    )
