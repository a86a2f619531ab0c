from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import Goldfish, Regularizers
from regularizers.goldfish import context_hash, goldfish_mask
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama


def mask_of(ids: list[int], context: int = 13, rate: float = 0.25) -> list[bool]:
    row = torch.tensor([ids])
    mask: list[bool] = goldfish_mask(row, torch.zeros_like(row), context, rate)[0].tolist()
    return mask


def hash_in_python(window: list[int]) -> int:
    """Hash the ids of a window with integers of unlimited size."""
    prime = 2**31 - 1
    total = sum((token + 1) * 1_103_515_245**place for place, token in enumerate(window, 1)) % prime
    mixed = (total ^ (total // 2**16)) * 1_597_334_677 % prime
    return mixed ^ (mixed // 2**15)


@pytest.mark.parametrize("context", [1, 4, 13])
def test_hash_is_exact_for_ids_of_any_size(context: int) -> None:
    ids = torch.randint(2**40, (2, 40), generator=torch.Generator().manual_seed(0)) % 2**31
    hashes = context_hash(ids, context)
    for row in range(2):
        for place in range(context, 40):
            window = ids[row, place - context : place].tolist()
            assert int(hashes[row, place]) == hash_in_python(window)
    assert 0 <= int(hashes.min()) <= int(hashes.max()) < 2**31


def test_loss_is_the_mean_over_the_labels_that_count() -> None:
    model, step = make_llama(), make_step(3, 96)
    dropped = {
        (row, place)
        for row in range(3)
        for place in range(3, 96)
        if step.document_ids[row, place - 3] == step.document_ids[row, place] >= 0
        and hash_in_python(step.input_ids[row, place - 3 : place].tolist()) < 0.4 * 2**31
    }
    by_token = losses(logits_of(model, step.input_ids, step.document_ids), step)
    assert 20 < len(dropped & by_token.keys()) < 0.5 * len(by_token)
    expected = mean([loss for at, loss in by_token.items() if at not in dropped])
    actual = float(training_loss(Goldfish(0.4, context=3), model, step).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_nothing_is_dropped_as_k_goes_to_infinity() -> None:
    step = make_step(3, 96)
    regularizers = Regularizers([Goldfish(1e-12, context=2)])
    assert torch.equal(regularizers.on_token_weight(step), step.valid.float())


@pytest.mark.parametrize("vocabulary", [2, 50, 150_000])
@pytest.mark.parametrize("rate", [0.02, 0.25, 0.5])
def test_share_of_labels_that_are_dropped(vocabulary: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    # Two token ids give 2¹⁷ different contexts, far more than are drawn.
    context = 17 if vocabulary == 2 else 13
    ids = torch.randint(vocabulary, (4, 5_000), generator=generator)
    mask = goldfish_mask(ids, torch.zeros_like(ids), context, rate)
    windows = {
        tuple(ids[row, place - context : place].tolist()): bool(mask[row, place])
        for row in range(4)
        for place in range(context, 5_000)
    }
    test = scipy.stats.binomtest(sum(windows.values()), len(windows), rate)
    assert test.pvalue > 1e-3


@pytest.mark.parametrize("context", [1, 13])
def test_neighbors_are_dropped_independently(context: int) -> None:
    # Consecutive numbers have the most similar contexts.
    mask = np.asarray(mask_of(list(range(40_000)), context)[context:])
    both = int((mask[1:] & mask[:-1]).sum())
    assert scipy.stats.binomtest(both, len(mask) - 1, 0.25**2).pvalue > 1e-3
    assert scipy.stats.binomtest(int(mask.sum()), len(mask), 0.25).pvalue > 1e-3


def test_the_label_itself_has_no_part_in_the_decision() -> None:
    ids = torch.randint(100, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    decisions = [mask_of([*ids, label])[-1] for label in range(100)]
    assert len(set(decisions)) == 1
    changed = [mask_of([*ids[:-1], last, 5])[-1] for last in range(100)]
    assert len(set(changed)) == 2
    farthest = [mask_of([*ids[:-13], last, *ids[-12:], 5])[-1] for last in range(100)]
    assert len(set(farthest)) == 2
    beyond = [mask_of([*ids[:-14], other, *ids[-13:], 5])[-1] for other in range(100)]
    assert len(set(beyond)) == 1


def test_id_zero_does_not_decide() -> None:
    # A product of ids would be 0 for each of these contexts.
    ids = [0 if place % 5 == 0 else place for place in range(4_000)]
    mask = mask_of(ids)
    assert scipy.stats.binomtest(sum(mask), len(ids) - 13, 0.25).pvalue > 1e-3


def test_a_passage_has_the_same_mask_wherever_it_stands() -> None:
    generator = torch.Generator().manual_seed(3)
    passage, before, between = (
        torch.randint(100, (length,), generator=generator) for length in (60, 20, 31)
    )
    rows = torch.stack(
        [
            torch.cat([before, passage, between]),
            torch.cat([between, passage, before]),
            torch.cat([passage, before, between]),
        ]
    )
    packed = torch.tensor([20 * [0] + 60 * [1] + 31 * [2], 111 * [0], 111 * [0]])
    mask = goldfish_mask(rows, packed, 13, 0.25)
    masks = [mask[0, 20:80], mask[1, 31:91], mask[2, :60]]
    for one, other in pairwise(masks):
        assert torch.equal(one[13:], other[13:])
    assert masks[0].any()
    # Tokens before a document do not affect it.
    assert torch.equal(masks[0], masks[2])
    step = make_step(3, 96)
    first = Goldfish().on_token_weight(torch.ones(3, 96), step)
    later = replace(step, epoch=3, global_step=9, micro_batch=1, rank=2, seed=5)
    assert torch.equal(Goldfish().on_token_weight(torch.ones(3, 96), later), first)


def test_beginnings_of_documents_and_padding_count() -> None:
    document_ids = torch.tensor([[0] * 20 + [1] * 5 + [2] * 15 + [-1] * 30])
    mask = goldfish_mask(torch.arange(70)[None], document_ids, 13, 1.0)
    assert mask[0].nonzero().flatten().tolist() == [*range(13, 20), 38, 39]


@pytest.mark.parametrize("length", [1, 12, 13, 14])
def test_rows_shorter_than_the_context(length: int) -> None:
    assert sum(mask_of(list(range(length)), rate=1.0)) == max(0, length - 13)


def test_a_rate_that_rises_only_adds() -> None:
    ids = list(range(1_000))
    lower, higher = (np.asarray(mask_of(ids, rate=rate)) for rate in (0.1, 0.3))
    assert not (lower & ~higher).any()
    assert lower.sum() < higher.sum()


def test_logged_rate_is_that_of_the_labels() -> None:
    step = make_step(3, 96)
    step.labels[:, :40] = -100
    weight = Regularizers([Goldfish(0.5, context=2)]).on_token_weight(step)
    expected = 1 - weight[step.valid].mean()
    assert step.metrics["goldfish/drop_rate"].item() == pytest.approx(float(expected))


def test_realized_rate_on_short_packed_documents_is_that_of_the_docs() -> None:
    length = 58
    ids = torch.randint(2, 60, (100, 4 * length), generator=torch.Generator().manual_seed(0))
    document_ids = torch.arange(4).repeat_interleave(length).expand_as(ids)
    step = make_step(input_ids=ids, labels=ids, document_ids=document_ids)
    Regularizers([Goldfish()]).on_token_weight(step)
    expected = 0.25 * (length - 13) / (length - 1)
    assert step.metrics["goldfish/drop_rate"].item() == pytest.approx(expected, abs=0.01)
    assert expected == pytest.approx(0.20, abs=0.005)


def test_a_context_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="Goldfish context: expected at least 1 token, got 0"):
        Goldfish(context=0)
