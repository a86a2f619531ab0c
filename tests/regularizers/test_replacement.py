from dataclasses import replace

import pytest
import scipy.stats
import torch

from regularizers import EntroDrop, RandomTokenDropout, Regularizer, Vocabulary
from regularizers.mir import MIR
from regularizers.replacement import (
    random_ordinary_ids,
    replace_embeddings,
    replace_ids,
    unigram_ids,
)
from regularizers.testing import make_step
from regularizers.token_replacement import TokenReplacement


@pytest.mark.parametrize(
    "special_ids", [(), (0,), (19,), (0, 1, 2), (18, 19), (3, 0, 4, 19, 10), (5, 5, 99, -1)]
)
def test_random_ids_are_uniform_over_ordinary_ids(special_ids: tuple[int, ...]) -> None:
    vocabulary = Vocabulary(20, special_ids)
    drawn = random_ordinary_ids(torch.zeros(20_000), vocabulary, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=20)
    ordinary = [word for word in range(20) if word not in special_ids]
    assert len(counts) == 20
    assert int(counts[ordinary].sum()) == 20_000
    assert scipy.stats.chisquare(counts[ordinary].numpy()).pvalue > 1e-4


def test_ids_are_replaced_where_dropped_only() -> None:
    ids = torch.arange(12).view(2, 6)
    dropped = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    step = make_step(input_ids=ids, vocabulary=Vocabulary(1000, mask_id=500))
    masked = replace_ids(ids, dropped, "mask_token", step, torch.Generator())
    assert torch.equal(masked, torch.where(dropped, 500, ids))
    noisy = replace_ids(ids, dropped, "random_token", step, torch.Generator())
    assert torch.equal(noisy[~dropped], ids[~dropped])
    assert (noisy[dropped] != ids[dropped]).float().mean() > 0.8
    assert noisy.dtype == torch.int64
    assert torch.equal(ids, torch.arange(12).view(2, 6))


@pytest.mark.parametrize("special_ids", [(0, 2), (2, 0, 99, -1), ()])
def test_unigram_ids_are_drawn_by_their_counts(special_ids: tuple[int, ...]) -> None:
    counts = torch.tensor([900, 3, 50, 0, 1, 96])
    generator = torch.Generator().manual_seed(0)
    drawn = unigram_ids(counts, torch.zeros(20_000), Vocabulary(6, special_ids), generator)
    expected = counts.double()
    expected[[each for each in special_ids if 0 <= each < 6]] = 0
    seen, possible = drawn.bincount(minlength=6), expected > 0
    assert not seen[~possible].any()
    expected *= 20_000 / expected.sum()
    assert scipy.stats.chisquare(seen[possible], expected[possible]).pvalue > 1e-4


def test_document_tokens_are_drawn_from_the_ordinary_tokens_of_the_document() -> None:
    step = make_step(3, 40)
    # A token names its place, and another regularizer has already changed the inputs.
    places = torch.where(step.alterable, torch.arange(100, 220).view(3, 40), step.input_ids)
    step = replace(step, input_ids=places, vocabulary=replace(step.vocabulary, size=999))
    changed = places.masked_fill(step.alterable, 9)
    counts = torch.zeros(120, 120)
    for number in range(400):
        generator = torch.Generator().manual_seed(number)
        drawn = replace_ids(changed, step.alterable, "document_token", step, generator)
        assert torch.equal(drawn[~step.alterable], places[~step.alterable])
        targets = step.alterable.flatten().nonzero().flatten()
        counts[targets, drawn[step.alterable] - 100] += 1
    rows = torch.arange(3)[:, None]
    documents = torch.where(step.alterable, step.document_ids + 100 * rows, -1).flatten()
    same = (documents[:, None] == documents) & (documents >= 0)
    assert not counts[~same].any()
    drawn_from = same.sum(1)
    expected = (400 / drawn_from)[:, None].expand(120, 120)[same]
    assert len(drawn_from.unique()) > 5
    assert scipy.stats.chisquare(counts[same], expected, sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mean_embedding_is_over_present_tokens_in_fp32(dtype: torch.dtype) -> None:
    embeddings = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    present = torch.ones(2, 300, dtype=torch.bool)
    present[1, 100:] = False
    dropped = torch.zeros(2, 300, dtype=torch.bool)
    dropped[0, 3] = True
    replaced = replace_embeddings(embeddings, dropped, "mean_embedding", present)
    mean = embeddings[present].double().mean(0).to(dtype)
    torch.testing.assert_close(replaced[0, 3], mean)
    assert torch.equal(replaced[~dropped], embeddings[~dropped])


def test_nothing_present_gives_no_nan() -> None:
    everything = torch.ones(1, 2, dtype=torch.bool)
    replaced = replace_embeddings(torch.ones(1, 2, 3), everything, "mean_embedding", ~everything)
    assert not replaced.any()


def test_dropped_embeddings_get_no_gradient_and_the_mean_gives_none() -> None:
    embeddings = torch.randn(1, 4, 3, requires_grad=True)
    dropped = torch.tensor([[True, False, False, False]])
    for replacement in ("zero", "mean_embedding"):
        replaced = replace_embeddings(embeddings, dropped, replacement, dropped | True)
        (gradient,) = torch.autograd.grad(replaced.sum(), embeddings)
        assert torch.equal(gradient, (~dropped).float()[..., None].expand(1, 4, 3))


@pytest.mark.parametrize(
    "regularizer",
    [
        EntroDrop(replacement="random_token"),
        RandomTokenDropout(replacement="random_token"),
        MIR(replacement="random_token"),
        TokenReplacement(),
        TokenReplacement(replacement="unigram_token"),
        TokenReplacement(replacement="document_token"),
    ],
)
def test_vocabulary_without_ordinary_words_is_refused(regularizer: Regularizer) -> None:
    regularizer.check(Vocabulary(3, (0, 2)), [])
    with pytest.raises(ValueError, match=r"ordinary tokens to draw from.* got 3 ids, all special"):
        regularizer.check(Vocabulary(3, (0, 1, 2, 9)), [])
