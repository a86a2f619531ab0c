import math
from dataclasses import replace

import pytest
import torch

from regularizers import Outputs, Regularizer, Requirements, TrainingStep
from regularizers.functional import document_positions
from regularizers.testing.steps import VOCABULARY, make_step
from regularizers.testing.toy import logits_of
from tests.helpers.llama import make_llama


def test_valid_tokens_have_a_label_and_a_predictor() -> None:
    step = make_step(3, 40)
    assert torch.equal(step.valid, step.labels != -100)
    copied = replace(step, labels=step.input_ids)  # as a Hugging Face collator makes them
    for row in range(3):
        for position in range(40):
            document = int(step.document_ids[row, position])
            before = int(step.document_ids[row, position - 1]) if position else -2
            assert bool(copied.valid[row, position]) == (document >= 0 and before == document)


def test_alterable_tokens_are_neither_special_nor_padding() -> None:
    step = make_step(3, 40)
    for row in range(3):
        for position in range(40):
            ordinary = int(step.input_ids[row, position]) not in VOCABULARY.special_ids
            present = int(step.document_ids[row, position]) >= 0
            assert bool(step.alterable[row, position]) == (ordinary and present)


def test_generator_repeats_and_is_apart_from_the_global_one() -> None:
    step = make_step()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again = (torch.rand(5, generator=step.generator()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_generator_is_the_same_in_every_release() -> None:
    step = make_step(seed=1, global_step=2, micro_batch=3, rank=4, stream=5)
    drawn = torch.randint(1000, (3,), generator=step.generator()).tolist()
    assert drawn == [598, 571, 89]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_from_logits_against_plain_loops(dtype: torch.dtype) -> None:
    step = make_step(2, 12)
    logits = (4 * torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(0))).to(dtype)
    outputs = Outputs.from_logits(logits.requires_grad_(), step.labels, step.document_ids)
    for row in range(2):
        for position in range(12):
            predicted = int(step.document_ids[row, position]) >= 0 and (
                position > 0
                and step.document_ids[row, position] == step.document_ids[row, position - 1]
            )
            entropy = outputs.entropy[row, position].item()
            assert math.isnan(entropy) == (not predicted)
            if not predicted:
                assert outputs.nll[row, position] == 0
                continue
            weights = logits[row, position - 1].double().exp()
            chances = weights / weights.sum()
            label = int(step.labels[row, position])
            nll = 0.0 if label == -100 else -math.log(chances[label].item())
            assert outputs.nll[row, position].item() == pytest.approx(nll, abs=1e-5)
            expected = -sum(chance * math.log(chance) for chance in chances.tolist())
            assert entropy == pytest.approx(expected, abs=1e-5)
            logsumexp = math.log(weights.sum().item())
            assert outputs.logsumexp[row, position].item() == pytest.approx(logsumexp, abs=1e-5)
    assert outputs.nll.dtype == outputs.entropy.dtype == outputs.logsumexp.dtype == torch.float32
    assert outputs.nll.requires_grad
    assert outputs.logsumexp.requires_grad
    assert not outputs.entropy.requires_grad


def test_mean_nll_of_one_document_is_the_loss_of_transformers() -> None:
    model = make_llama()
    ids = torch.randint(64, (2, 20), generator=torch.Generator().manual_seed(0))
    document_ids = torch.zeros_like(ids)
    outputs = Outputs.from_logits(logits_of(model, ids, document_ids), ids, document_ids)
    step = TrainingStep(ids, ids, document_ids, VOCABULARY)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    torch.testing.assert_close(outputs.nll.sum() / step.valid.sum(), loss)


def test_packed_documents_score_as_they_do_alone() -> None:
    model, step = make_llama(layers=2), make_step(1, 24)
    packed_logits = logits_of(model, step.input_ids, step.document_ids)
    packed = Outputs.from_logits(packed_logits, step.labels, step.document_ids)
    for document in range(int(step.document_ids.max()) + 1):
        inside = step.document_ids[0] == document
        parts = (step.input_ids[:, inside], step.labels[:, inside], step.document_ids[:, inside])
        alone = Outputs.from_logits(logits_of(model, parts[0], parts[2]), parts[1], parts[2])
        torch.testing.assert_close(packed.nll[:, inside], alone.nll)
        torch.testing.assert_close(packed.entropy[:, inside], alone.entropy, equal_nan=True)


def test_positions_restart_in_each_document() -> None:
    document_ids = torch.tensor([[0, 0, 1, 1, 1, -1, -1]])
    assert document_positions(document_ids).tolist() == [[0, 1, 0, 1, 2, 0, 1]]


def test_base_class_changes_nothing() -> None:
    step, plain = make_step(), Regularizer()
    embeddings = torch.randn(3, 24, 2)
    outputs = Outputs(*torch.rand(5, 3, 24))
    assert plain.requirements == Requirements()
    assert plain.on_input_ids(step.input_ids, step) is step.input_ids
    assert plain.on_embeddings(embeddings, step) is embeddings
    assert plain.on_loss(outputs.nll.mean(), outputs, step) == outputs.nll.mean()


def test_step_is_frozen() -> None:
    with pytest.raises(AttributeError):
        make_step().progress = 0.1  # type: ignore[misc]
