from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import HighEntropyExclusion, Regularizers, TrainingStep
from regularizers.functional import is_document_start
from regularizers.high_entropy_exclusion import is_highest_entropy
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import ToyLM, first_forward, logits_of
from tests.helpers.float64 import log_probabilities, losses, mean, valid_tokens
from tests.helpers.llama import make_llama


def make_distinct_step() -> TrainingStep:
    """Start all documents differently, so that no two entropies are equal up to rounding."""
    step = make_step(4, 48)
    starts = is_document_start(step.document_ids) & (step.document_ids >= 0)
    numbers = starts.flatten().cumsum(0).view_as(starts)
    return replace(step, input_ids=torch.where(starts, numbers, step.input_ids))


STEP = make_distinct_step()
GROUPS = {
    "batch": lambda row, place: 0,
    "sequence": lambda row, place: row,
    "document": lambda row, place: (row, int(STEP.document_ids[row, place])),
}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("scope", list(GROUPS))
def test_loss_is_the_mean_over_the_tokens_of_lower_entropy(share: float, scope: Any) -> None:
    model = make_llama()
    logits = logits_of(model, STEP.input_ids, STEP.document_ids)
    p = np.exp(log_probabilities(logits))
    groups: dict[Any, list[tuple[float, tuple[int, int]]]] = {}
    for at in valid_tokens(STEP):
        groups.setdefault(GROUPS[scope](*at), []).append((float(scipy.stats.entropy(p[at])), at))
    kept = [
        at
        for members in groups.values()
        for _, at in sorted(members)[: len(members) - int(share * len(members))]
    ]
    by_token = losses(logits, STEP)
    expected = mean([by_token[at] for at in kept])
    actual = float(training_loss(HighEntropyExclusion(share, scope), model, STEP).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_prompts_and_unknown_entropies_are_neither_ranked_nor_excluded() -> None:
    entropy = torch.tensor([[torch.nan, 9.0, 1.0, 2.0, 3.0, 4.0, torch.nan]])
    valid = torch.tensor([[True, False, True, True, True, True, True]])
    groups = torch.zeros(1, 7, dtype=torch.long)
    excluded = is_highest_entropy(entropy, valid, groups, 0.5)
    assert excluded.tolist() == [[False, False, False, False, True, True, False]]
    assert is_highest_entropy(entropy, valid, groups, 1.0).sum() == 4


def test_excluded_tokens_have_no_gradient() -> None:
    model = ToyLM()
    regularizers = Regularizers([HighEntropyExclusion(0.5)])
    step = replace(STEP, metrics={})
    outputs = first_forward(model, regularizers, step)
    nll = outputs.nll.detach().requires_grad_()
    outputs = replace(outputs, nll=nll)
    regularizers.mean_loss(outputs, step).backward()
    assert nll.grad is not None
    kept, excluded = step.valid & nll.grad.ne(0), step.valid & nll.grad.eq(0)
    rate = int(excluded.sum()) / int(step.valid.sum())
    assert step.metrics["high_entropy_exclusion/drop_rate"].item() == pytest.approx(rate)
    for row in range(4):
        lowest = outputs.entropy[row][excluded[row]].min()
        assert outputs.entropy[row][kept[row]].max() <= lowest


def test_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="HighEntropyExclusion scope: expected one of document"):
        HighEntropyExclusion(scope="corpus")  # type: ignore[arg-type]
