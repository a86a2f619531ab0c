from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regularizers import (
    Constant,
    EmbeddingDropout,
    EntroDrop,
    Outputs,
    RandomTokenDropout,
    Regularizer,
    Regularizers,
    Requirements,
    TokenLoss,
    TrainingStep,
    Vocabulary,
    perturbed_embeddings,
)
from regularizers.discovery import own_regularizers
from regularizers.testing.steps import VOCABULARY, make_step, slice_rows
from regularizers.testing.toy import ToyLM, first_forward, logits_of, provide
from tests.helpers.llama import make_llama


class Affine(Regularizer):
    """Maps every quantity x to factor · x + offset, so that the order of two matters."""

    def __init__(self, factor: int = 1, offset: int = 0) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        step.log("stream", torch.tensor(float(step.stream)))
        return self.factor * input_ids + self.offset

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        return self.factor * embeddings + self.offset

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        return replace(token_loss, loss=self.factor * token_loss.loss + self.offset)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return self.factor * loss + self.offset


class Needy(Regularizer):
    """Has the given requirements."""

    def __init__(self, **needs: Any) -> None:
        super().__init__()
        self.needs = needs

    @property
    def requirements(self) -> Requirements:
        return Requirements(**self.needs)


def make_outputs(step: TrainingStep, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*step.input_ids.shape, 64, generator=generator, requires_grad=True)
    return Outputs.from_logits(logits, step.labels, step.document_ids)


def test_applied_in_order_in_every_hook() -> None:
    step = make_step()
    outputs = make_outputs(step)
    double_then_add = Regularizers([Affine(factor=2), Affine(offset=3)])
    add_then_double = Regularizers([Affine(offset=3), Affine(factor=2)])
    ids, embeddings = step.input_ids, torch.randn(3, 24, 2)
    assert torch.equal(double_then_add.on_input_ids(step), 2 * ids + 3)
    assert torch.equal(add_then_double.on_input_ids(step), 2 * (ids + 3))
    assert torch.equal(double_then_add.on_embeddings(embeddings, step), 2 * embeddings + 3)
    assert torch.equal(add_then_double.on_embeddings(embeddings, step), 2 * (embeddings + 3))
    nll = outputs.nll
    assert torch.equal(double_then_add.on_token_loss(outputs, step).loss, 2 * nll + 3)
    assert torch.equal(add_then_double.on_token_loss(outputs, step).loss, 2 * (nll + 3))


def test_mean_losses_are_reshaped_in_order() -> None:
    step, loss = make_step(), torch.tensor(1.0)
    regularizers = Regularizers([Affine(offset=3), Affine(), Affine(2, offset=4)])
    assert regularizers.on_loss(loss, make_outputs(step), step) == 12


def test_each_regularizer_learns_from_evaluations() -> None:
    told: list[float] = []

    class Listening(Constant):
        def on_evaluation(self, metrics: Mapping[str, float]) -> None:
            told.append(metrics["val/loss"])

    Regularizers([EmbeddingDropout(Listening(0.1)), EntroDrop(), Affine()]).on_evaluation(
        {"val/loss": 2.5}
    )
    assert told == [2.5]


def test_two_teachers_are_refused() -> None:
    assert Regularizers([Needy(teacher=0.9), Needy()]).requirements.teacher == 0.9
    with pytest.raises(ValueError, match=r"one teacher for all, got 0.9 of Needy, 0.99 of Needy"):
        Regularizers([Needy(teacher=0.9), Needy(teacher=0.99)])


def test_names_and_streams_of_duplicates_differ_and_prefix_metrics() -> None:
    regularizers = Regularizers([EntroDrop(), Affine(), RandomTokenDropout(), Affine()])
    assert regularizers.names == ["entro_drop", "affine", "random_token_dropout", "affine_2"]
    step = make_step()
    regularizers.on_embeddings(torch.ones(3, 24, 2), step)
    regularizers.on_input_ids(step)
    assert set(step.metrics) == {
        "entro_drop/strength",
        "entro_drop/drop_rate",
        "random_token_dropout/strength",
        "random_token_dropout/drop_rate",
        "affine/stream",
        "affine_2/stream",
    }
    assert step.metrics["affine/stream"] == 1
    assert step.metrics["affine_2/stream"] == 3


def test_names_are_those_of_the_files() -> None:
    for kind in own_regularizers().values():
        file = kind.__module__.rpartition(".")[2]
        assert Regularizers([kind()]).names == ["entro_drop" if kind is EntroDrop else file]


def test_eval_mode_is_a_no_op_and_asks_for_nothing() -> None:
    regularizers = Regularizers([EntroDrop(curriculum=1.0, target="both"), Affine(3, 4)]).eval()
    step = make_step(entropy=None)
    outputs, embeddings = make_outputs(step), torch.randn(3, 24, 2)
    assert regularizers.on_input_ids(step) is step.input_ids
    assert regularizers.on_embeddings(embeddings, step) is embeddings
    loss, weight = regularizers.reduce(outputs, step)
    torch.testing.assert_close(loss, outputs.nll.sum())
    assert weight == step.valid.sum()
    assert step.metrics == {}


def test_nothing_is_plain_training() -> None:
    step, regularizers = make_step(), Regularizers()
    outputs = make_outputs(step)
    expected = outputs.nll[step.valid].mean()
    torch.testing.assert_close(regularizers.mean_loss(outputs, step), expected)
    assert regularizers.requirements == Requirements()


def test_requirements_are_merged() -> None:
    regularizers = Regularizers(
        [Needy(reference=True), Needy(logits=True, entropy="online"), Needy(entropy="online")]
    )
    assert regularizers.requirements == Requirements("online", reference=True, logits=True)


def test_two_entropy_sources_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one entropy source.*last_epoch.*online.*same"):
        Regularizers([EntroDrop(), EntroDrop(entropy_source="online")])


def test_check_passes_the_vocabulary_and_the_others() -> None:
    seen = []

    class Curious(Affine):
        def check(self, vocabulary: Vocabulary, others: Any) -> None:
            seen.append((vocabulary, list(others)))

    first, second, third = Curious(), EmbeddingDropout(), Curious()
    Regularizers([first, second, third]).check(VOCABULARY)
    assert seen == [(VOCABULARY, [second, third]), (VOCABULARY, [first, second])]


def test_missing_entropy_is_named_with_its_source() -> None:
    regularizers, step = Regularizers([EntroDrop()]), make_step(entropy=None)
    with pytest.raises(ValueError, match=r"entro_drop.*TrainingStep.entropy \(from last_epoch\)"):
        regularizers.on_input_ids(step)
    with pytest.raises(ValueError, match=r"TrainingStep\.entropy"):
        regularizers.on_embeddings(torch.ones(3, 24, 2), step)


@pytest.mark.parametrize("need", ["second_forward", "reference"])
def test_missing_forward_passes_are_named(need: str) -> None:
    with pytest.raises(ValueError, match=rf"needy.*TrainingStep\.{need}, got None"):
        Regularizers([Needy(**{need: True})]).on_input_ids(make_step())


def test_missing_logits_are_named() -> None:
    step = make_step()
    outputs = replace(make_outputs(step), logits=None)
    with pytest.raises(ValueError, match=r"needy.*Outputs\.logits, got None"):
        Regularizers([Needy(logits=True)]).mean_loss(outputs, step)
    Regularizers([Needy(logits=True)]).eval().mean_loss(outputs, step)


@pytest.mark.parametrize("target", ["input", "loss", "both"])
def test_splitting_a_batch_leaves_the_loss_unchanged(target: str) -> None:
    step, model = make_step(6, 30), make_llama()
    full_drop: dict[str, Any] = {"curriculum": 1.0, "replacement": "zero"}
    regularizers = Regularizers([EntroDrop(target=target, **full_drop), Affine(offset=2)])  # type: ignore[arg-type]

    def reduced(part: TrainingStep) -> tuple[Tensor, Tensor]:
        ids_only = Regularizers(list(regularizers.ordered[:1]))
        outputs = first_forward(model, ids_only, part)
        return regularizers.reduce(outputs, part)

    loss, weight = reduced(step)
    parts = [reduced(slice_rows(step, rows)) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(sum(part[0] for part in parts), loss)
    assert sum(part[1] for part in parts) == weight


def test_splitting_a_batch_leaves_the_gradient_unchanged() -> None:
    step = make_step(6, 30)
    regularizers = Regularizers([EntroDrop(curriculum=1.0, replacement="zero")])

    def gradient(parts: list[TrainingStep]) -> Tensor:
        model = ToyLM()
        total = 0
        for part in parts:
            loss, weight = regularizers.reduce(first_forward(model, regularizers, part), part)
            loss.backward()
            total += int(weight)
        assert model.head.grad is not None
        return model.head.grad / total

    halves = [slice_rows(step, slice(0, 2)), slice_rows(step, slice(2, 6))]
    torch.testing.assert_close(gradient(halves), gradient([step]))


def test_all_masked_batch_gives_a_zero_attached_to_the_graph() -> None:
    step, model = make_step(labels=torch.full((3, 24), -100)), ToyLM()
    regularizers = Regularizers([EntroDrop(curriculum=1.0)])
    loss = regularizers.mean_loss(first_forward(model, regularizers, step), step)
    assert loss == 0
    loss.backward()
    assert model.head.grad is not None
    assert not model.head.grad.any()


def test_first_forward_sees_the_corruption_and_later_ones_do_not() -> None:
    model, step = make_llama(), make_step()
    clean = logits_of(model, step.input_ids, step.document_ids)
    regularizers = Regularizers([EntroDrop(curriculum=1.0)])
    corrupted = first_forward(model, regularizers, provide(model, regularizers, step))
    partitions = clean[:, :-1].logsumexp(-1)
    assert not torch.allclose(corrupted.logsumexp[:, 1:], partitions)
    assert torch.equal(logits_of(model, step.input_ids, step.document_ids), clean)


def test_hook_is_removed_even_after_an_exception() -> None:
    table, ids = nn.Embedding(4, 2), torch.tensor([1, 2])
    clean = table(ids)

    def train() -> None:
        with perturbed_embeddings(table, torch.zeros_like):
            assert not table(ids).any()
            raise RuntimeError("in the model")

    with pytest.raises(RuntimeError, match="in the model"):
        train()

    def broken(embeddings: Tensor) -> Tensor:
        raise RuntimeError("in the regularizer")

    with (
        pytest.raises(RuntimeError, match="in the regularizer"),
        perturbed_embeddings(table, broken),
    ):
        table(ids)
    assert torch.equal(table(ids), clean)
    assert len(table._forward_hooks) == 0


def test_nested_perturbations_apply_inside_out() -> None:
    table, ids = nn.Embedding(4, 2), torch.tensor([1])
    with (
        perturbed_embeddings(table, lambda embeddings: embeddings + 1),
        perturbed_embeddings(table, lambda embeddings: embeddings * 2),
    ):
        assert torch.equal(table(ids), (table.weight[1:2] + 1) * 2)


def test_regularizers_is_a_module_whose_children_are_saved() -> None:
    regularizers = Regularizers([EntroDrop(), EmbeddingDropout()])
    assert [type(child) for child in regularizers.children()] == [EntroDrop, EmbeddingDropout]
    assert regularizers.eval().ordered[0].training is False


class WrongShape(Regularizer):
    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        return embeddings[:, :1]

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return outputs.nll


def test_wrong_shapes_are_refused_by_name() -> None:
    ids = torch.tensor([[1, 2, 3]])
    step = TrainingStep(ids, ids, torch.zeros_like(ids), Vocabulary(5))
    outputs = Outputs.from_logits(torch.zeros(1, 3, 5), ids, step.document_ids)
    wrong = Regularizers([WrongShape()])
    with pytest.raises(
        ValueError, match=r"WrongShape.on_embeddings: .*\[1, 3, 2\], got \[1, 1, 2\]"
    ):
        wrong.on_embeddings(torch.zeros(1, 3, 2), step)
    with pytest.raises(ValueError, match=r"WrongShape.on_loss: .*shape \[\], got \[1, 3\]"):
        wrong.on_loss(outputs.nll.mean(), outputs, step)
