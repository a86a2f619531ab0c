from typing import Any

import pytest
import scipy.stats
import torch

from regularizers import Regularizers, TokenLoss, Vocabulary
from regularizers.mir import MIR, masked_inputs
from regularizers.replacement import replace_ids
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.steps import MASK_ID
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("replacement", ["mask_token", "random_token"])
def test_loss_against_float64(replacement: Any) -> None:
    model, step = make_llama(layers=2), make_step()
    generator = step.generator()
    masked = masked_inputs(step.alterable, step.document_ids, 0.5, 2, generator)
    ids = replace_ids(step.input_ids, masked, replacement, step, generator)
    assert (ids != step.input_ids).sum() > 5
    clean, noisy = (
        mean(list(losses(logits_of(model, each, step.document_ids), step).values()))
        for each in (step.input_ids, ids)
    )
    actual = training_loss(MIR(0.4, kept_prefix=2, replacement=replacement), model, step).item()
    assert actual == pytest.approx(clean + 0.4 * noisy, abs=1e-5)
    assert abs(noisy - clean) > 1e-3


def test_zero_masks_as_a_word_of_zero_embedding_would() -> None:
    model, step = ToyLM(), make_step()
    with torch.no_grad():
        model.embedding.weight[MASK_ID] = 0
    ids = step.input_ids.where(step.input_ids != MASK_ID, 1)
    step = make_step(input_ids=ids)
    by_zero, by_token = (
        training_loss(MIR(1.0, replacement=each), model, step) for each in ("zero", "mask_token")
    )
    torch.testing.assert_close(by_zero, by_token)
    assert abs(by_zero - 2 * training_loss(MIR(0.0), model, step)) > 1e-3


def test_shares_are_uniform_over_rows() -> None:
    every = torch.ones(400, 500, dtype=torch.bool)
    one_each = torch.zeros_like(every, dtype=torch.long)
    masked = masked_inputs(every, one_each, 0.5, 100, torch.Generator().manual_seed(0))
    assert not masked[:, :100].any()
    assert masked[:, 100].any()
    shares = masked[:, 100:].double().mean(1)
    assert scipy.stats.kstest(shares, "uniform", args=(0, 0.5)).pvalue > 1e-4


def test_the_start_of_each_packed_document_is_never_masked() -> None:
    # Two documents in one row, one that is all prefix, and padding.
    document_ids = torch.tensor([[0] * 12 + [1] * 12 + [2] * 8 + [-1] * 4]).expand(200, -1)
    every, draw = document_ids >= 0, torch.Generator().manual_seed(0)
    ever = masked_inputs(every, document_ids, 1.0, 8, draw).any(0)
    assert ever.tolist() == ([False] * 8 + [True] * 4) * 2 + [False] * 12
    assert (
        masked_inputs(every, document_ids, 1.0, 0, draw).any(0).tolist()
        == [True] * 32 + [False] * 4
    )


def test_what_does_not_count_does_not_count_in_the_second_pass() -> None:
    model, step = ToyLM(), make_step()
    regularizers = Regularizers([MIR(1.0)])
    provided = provide(model, regularizers, step)
    weight = step.valid.float()
    weight[0] = 0
    outputs = first_forward(model, regularizers, provided)
    loss, total = regularizers.reduce(outputs, provided, weight)
    rest = make_step(labels=step.labels.index_fill(0, torch.tensor([0]), -100))
    torch.testing.assert_close(loss / total, training_loss(MIR(1.0), model, rest))


def test_it_adds_to_what_others_made_of_the_loss() -> None:
    model, regularizers = ToyLM(), Regularizers([MIR(1.0)])
    step = provide(model, regularizers, make_step())
    outputs = first_forward(model, regularizers, step)
    plain, given = (
        MIR(1.0).on_token_loss(TokenLoss(loss, step.valid.float()), outputs, step).loss
        for loss in (outputs.nll, outputs.nll + 1)
    )
    torch.testing.assert_close(given, plain + 1)


def test_tokenizers_without_a_mask_token() -> None:
    Regularizers([MIR()]).check(Vocabulary(64))
    with pytest.raises(ValueError, match="MIR replacement: 'mask_token' needs a tokenizer"):
        Regularizers([MIR(replacement="mask_token")]).check(Vocabulary(64))


@pytest.mark.parametrize("settings", [{"max_share": 0.0}, {"max_share": 1.1}, {"kept_prefix": -1}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"MIR {next(iter(settings))}: expected"):
        MIR(**settings)
