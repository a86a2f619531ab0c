from dataclasses import replace

import pytest
import scipy.stats
import torch

from regularizers import Regularizers, TrainingStep
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from regularizers.token_replacement import TokenReplacement
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama

STEP = make_step(4, 60)


def replaced_ids(p: float, step: TrainingStep) -> torch.Tensor:
    return TokenReplacement(p).on_input_ids(step.input_ids, step)


def test_full_strength_leaves_nothing_but_random_ordinary_words() -> None:
    counts = torch.zeros(64, dtype=torch.long)
    for number in range(40):
        drawn = replaced_ids(1.0, replace(STEP, global_step=number))[STEP.alterable]
        counts += drawn.bincount(minlength=64)
    ordinary = torch.ones(64, dtype=torch.bool)
    ordinary[list(STEP.vocabulary.special_ids)] = False
    assert not counts[~ordinary].any()
    assert scipy.stats.chisquare(counts[ordinary]).pvalue > 1e-4


def test_share_of_changed_tokens_is_that_of_draws_of_another_word() -> None:
    changed = total = 0
    for number in range(50):
        ids = replaced_ids(0.3, replace(STEP, global_step=number))
        changed += int((ids != STEP.input_ids).sum())
        total += int(STEP.alterable.sum())
    assert scipy.stats.binomtest(changed, total, 0.3 * 60 / 61).pvalue > 1e-4


def test_the_true_words_are_predicted_from_the_noisy_ones() -> None:
    model, step = make_llama(layers=2), make_step()
    noisy = replaced_ids(0.3, step)
    assert (noisy != step.input_ids).any()
    expected = mean(list(losses(logits_of(model, noisy, step.document_ids), step).values()))
    actual = training_loss(TokenReplacement(0.3), model, step).item()
    assert actual == pytest.approx(expected, abs=1e-5)


def test_logged_rate_is_the_share_of_alterable_tokens() -> None:
    step = replace(STEP, metrics={})
    Regularizers([TokenReplacement(1.0)]).on_input_ids(step)
    assert step.metrics["token_replacement/drop_rate"] == 1
