from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from regularizers import EntroDrop, Outputs, Regularizers, TrainingStep, Vocabulary
from regularizers.replacement import IdReplacement, Replacement
from regularizers.testing.steps import MASK_ID, VOCABULARY, make_step
from regularizers.token_dropout import Target, require_choice
from tests.regularizers.reference import dropped_inputs

STEP = make_step(4, 60)


def mask_of(step: TrainingStep) -> torch.Tensor:
    return dropped_inputs(EntroDrop(curriculum=0.5), step)


def make_outputs(step: TrainingStep) -> Outputs:
    nll = torch.rand(step.input_ids.shape, generator=torch.Generator().manual_seed(1)) * step.valid
    return Outputs(nll, *torch.rand(3, *nll.shape), nll > 0.5)


def test_mask_is_a_function_of_the_step() -> None:
    expected = mask_of(STEP)
    torch.rand(1000)
    assert torch.equal(mask_of(replace(STEP, metrics={})), expected)


@pytest.mark.parametrize("field", ["seed", "global_step", "micro_batch", "rank", "stream"])
def test_mask_is_redrawn_for_another(field: str) -> None:
    masks = [mask_of(replace(STEP, **{field: number})) for number in range(30)]  # type: ignore[arg-type]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 30


def test_swapping_two_fields_changes_the_mask() -> None:
    masks = [
        mask_of(replace(STEP, global_step=1, rank=2)),
        mask_of(replace(STEP, global_step=2, rank=1)),
        mask_of(replace(STEP, global_step=12)),
    ]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 3


def test_mask_does_not_depend_on_the_epoch_alone() -> None:
    assert torch.equal(mask_of(replace(STEP, epoch=3)), mask_of(STEP))


def test_two_of_a_kind_in_one_list_draw_differently() -> None:
    kinds = [EntroDrop(curriculum=0.5, replacement="zero") for _ in range(2)]
    first, second = Regularizers([*kinds]).ordered
    assert isinstance(first, EntroDrop)
    assert isinstance(second, EntroDrop)
    both = Regularizers([first, second]).on_embeddings(torch.ones(4, 60, 1), STEP).eq(0)
    alone = Regularizers([first]).on_embeddings(torch.ones(4, 60, 1), STEP).eq(0)
    assert both.sum() > alone.sum()
    assert torch.equal(alone & both, alone)


def test_all_hooks_of_one_step_agree_on_the_mask() -> None:
    settings: dict[str, Any] = {"curriculum": 0.5, "target": "both"}
    expected = mask_of(STEP)
    zero = EntroDrop(replacement="zero", **settings)
    weight = zero.on_token_weight(STEP.valid.float(), STEP)
    assert torch.equal(weight, STEP.valid.float() * ~expected)
    mask_token = EntroDrop(replacement="mask_token", **settings)
    ids = mask_token.on_input_ids(STEP.input_ids, STEP)
    assert torch.equal(ids, STEP.input_ids.masked_fill(expected, MASK_ID))


@pytest.mark.parametrize("target", ["input", "both"])
@pytest.mark.parametrize("replacement", get_args(Replacement))
def test_each_replacement_acts_in_one_place(target: str, replacement: str) -> None:
    regularizer = EntroDrop(curriculum=0.5, target=target, replacement=replacement)  # type: ignore[arg-type]
    embeddings = torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(2))
    ids = regularizer.on_input_ids(STEP.input_ids, STEP)
    perturbed = regularizer.on_embeddings(embeddings, STEP)
    dropped = mask_of(STEP)
    changed_ids, changed_rows = ids != STEP.input_ids, (perturbed != embeddings).any(-1)
    in_ids = replacement in get_args(IdReplacement)
    assert torch.equal(changed_rows, dropped & (not in_ids))
    assert not (changed_ids & ~dropped).any()
    # A drawn token may equal the original, often in a short document.
    most = 0.4 if replacement == "document_token" else 0.8
    assert int(changed_ids.sum()) >= most * int(dropped.sum()) * in_ids
    if replacement == "zero":
        assert not perturbed[dropped].any()
    if replacement == "mean_embedding":
        mean = embeddings[STEP.document_ids >= 0].mean(0)
        torch.testing.assert_close(perturbed[dropped], mean.expand(int(dropped.sum()), 3))


def test_target_input_leaves_labels_loss_and_denominator_alone() -> None:
    regularizers = Regularizers([EntroDrop(curriculum=1.0, target="input")])
    labels, outputs = STEP.labels.clone(), make_outputs(STEP)
    loss, weight = regularizers.reduce(outputs, STEP)
    assert torch.equal(STEP.labels, labels)
    assert weight == STEP.valid.sum()
    torch.testing.assert_close(loss, outputs.nll[STEP.valid].sum())


def test_target_loss_counts_kept_tokens_only_and_sees_all_inputs() -> None:
    regularizer = EntroDrop(curriculum=0.5, target="loss")
    embeddings, outputs = torch.ones(4, 60, 2), make_outputs(STEP)
    assert torch.equal(regularizer.on_embeddings(embeddings, STEP), embeddings)
    assert torch.equal(regularizer.on_input_ids(STEP.input_ids, STEP), STEP.input_ids)
    kept = STEP.valid & ~mask_of(STEP)
    loss, weight = Regularizers([regularizer]).reduce(outputs, STEP)
    assert 0 < weight == kept.sum() < STEP.valid.sum()
    torch.testing.assert_close(loss, outputs.nll[kept].sum())
    mean = Regularizers([regularizer]).mean_loss(outputs, STEP)
    torch.testing.assert_close(mean, outputs.nll[kept].mean())


def test_mask_token_without_one_is_refused_before_and_in_training() -> None:
    maskless = Vocabulary(size=64, special_ids=VOCABULARY.special_ids)
    regularizer = EntroDrop(replacement="mask_token", curriculum=1.0)
    with pytest.raises(ValueError, match=r"EntroDrop replacement.*use 'zero'"):
        Regularizers([regularizer]).check(maskless)
    with pytest.raises(ValueError, match=r"replacement.*use 'zero'"):
        regularizer.on_input_ids(STEP.input_ids, replace(STEP, vocabulary=maskless))
    Regularizers([regularizer]).check(VOCABULARY)


def test_tokenizer_without_special_tokens() -> None:
    step = replace(STEP, vocabulary=Vocabulary(size=64))
    assert torch.equal(step.alterable, step.document_ids >= 0)
    assert mask_of(step).any()


def test_unknown_choice_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"target: expected one of input, loss, both, got 'inputs'"
    ):
        require_choice("target", "inputs", Target)
