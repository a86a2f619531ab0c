import math
from dataclasses import replace
from typing import Any

import pytest
import scipy.stats
import torch

from regularizers import EmbeddingDropout, Linear, Regularizers, TrainingStep, Vocabulary
from regularizers.embedding_dropout import embedding_drop_mask
from regularizers.testing.steps import make_step

STEP = make_step(4, 60)


def drop(step: TrainingStep, granularity: Any, p: float = 0.4, dimensions: int = 8) -> torch.Tensor:
    embeddings = torch.ones(*step.input_ids.shape, dimensions)
    return EmbeddingDropout(p, granularity).on_embeddings(embeddings, step)


def test_row_drops_a_word_throughout_the_batch() -> None:
    dropped = drop(STEP, "row").eq(0)
    assert torch.equal(dropped.any(-1), dropped.all(-1))
    fates: dict[int, set[bool]] = {}
    for place in STEP.alterable.nonzero().tolist():
        word = int(STEP.input_ids[tuple(place)])
        fates.setdefault(word, set()).add(bool(dropped[tuple(place)].all()))
    assert {len(fate) for fate in fates.values()} == {1}
    assert {True} in fates.values()
    assert {False} in fates.values()


def test_position_drops_whole_tokens_apart_from_their_word() -> None:
    step = replace(STEP, input_ids=torch.full((4, 60), 9))
    dropped = drop(step, "position").eq(0)
    assert torch.equal(dropped.any(-1), dropped.all(-1))
    share = dropped.all(-1)[step.alterable].float().mean()
    assert 0.2 < share < 0.6


def test_element_drops_numbers_apart_from_their_token() -> None:
    dropped = drop(STEP, "element").eq(0)[STEP.alterable]
    mixed = dropped.any(-1) & ~dropped.all(-1)
    assert mixed.float().mean() > 0.9
    hits, total = int(dropped.sum()), dropped.numel()
    assert scipy.stats.binomtest(hits, total, 0.4).pvalue > 1e-4


@pytest.mark.parametrize("granularity", ["row", "position", "element"])
def test_kept_values_are_scaled_and_the_expectation_is_unchanged(granularity: str) -> None:
    total, steps = torch.zeros(4, 60, 8), 1500
    for number in range(steps):
        perturbed = drop(replace(STEP, global_step=number), granularity)
        total += perturbed
        altered = perturbed[STEP.alterable]
        torch.testing.assert_close(altered[altered != 0].unique(), torch.tensor([1 / 0.6]))
    spread = math.sqrt(0.4 / 0.6 / steps)
    assert ((total / steps)[STEP.alterable] - 1).abs().max() < 5 * spread
    assert torch.equal(total[~STEP.alterable], torch.full_like(total[~STEP.alterable], steps))


@pytest.mark.parametrize("granularity", ["row", "position", "element"])
def test_special_tokens_and_padding_are_neither_dropped_nor_scaled(granularity: str) -> None:
    for p in (0.4, 1.0):
        perturbed = drop(STEP, granularity, p)
        assert perturbed[~STEP.alterable].eq(1).all()
        assert p < 1 or not perturbed[STEP.alterable].any()


@pytest.mark.parametrize("granularity", ["row", "position", "element"])
def test_logged_rate_is_the_share_of_alterable_numbers(granularity: str) -> None:
    regularizers = Regularizers([EmbeddingDropout(0.4, granularity)])  # type: ignore[arg-type]
    step = replace(STEP, metrics={})
    zeroed = regularizers.on_embeddings(torch.ones(4, 60, 8), step).eq(0)
    expected = float(zeroed[step.alterable].float().mean())
    assert step.metrics["embedding_dropout/drop_rate"].item() == pytest.approx(expected)


def test_follows_its_curriculum() -> None:
    regularizer = EmbeddingDropout(Linear(end=1.0), "element")
    shares = [
        float(
            regularizer.on_embeddings(torch.ones(4, 60, 8), replace(STEP, progress=progress))
            .eq(0)[STEP.alterable]
            .float()
            .mean()
        )
        for progress in (0.0, 0.25, 0.75, 1.0)
    ]
    assert shares == pytest.approx([0.0, 0.25, 0.75, 1.0], abs=0.05)


def test_full_dropout_in_half_precision_is_zero_not_nan() -> None:
    embeddings = torch.full((4, 60, 8), 6e4, dtype=torch.float16, requires_grad=True)
    perturbed = EmbeddingDropout(1.0).on_embeddings(embeddings, STEP)
    perturbed.sum().backward()
    assert not perturbed[STEP.alterable].any()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_row_mask_has_one_draw_per_word() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(1000)[None]
    mask = embedding_drop_mask(torch.ones(1, 1000, 1), ids, "row", 0.3, 1000, generator)
    assert mask.shape == (1, 1000, 1)
    assert scipy.stats.binomtest(int(mask.sum()), 1000, 0.3).pvalue > 1e-4


def test_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="EmbeddingDropout granularity: expected one of row"):
        EmbeddingDropout(0.1, "word")  # type: ignore[arg-type]


def test_vocabulary_without_special_tokens() -> None:
    step = replace(STEP, vocabulary=Vocabulary(64))
    assert drop(step, "position", 1.0)[step.document_ids >= 0].eq(0).all()
