"""The contract of every regularizer, as a pytest class."""

from dataclasses import replace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.compose import Regularizers
from regularizers.outputs import TokenLoss
from regularizers.testing.cases import Case, cases_of
from regularizers.testing.observing import assert_untouched, gradient, make_model, observe
from regularizers.testing.parts_contract import PartsContract
from regularizers.testing.settings_contract import SettingsContract
from regularizers.testing.steps import make_step, on_cuda
from regularizers.testing.toy import ToyLM, first_forward, provide
from regularizers.training_step import TrainingStep

try:
    import pytest
except ImportError as error:
    raise ImportError("regularizers.testing.contract needs pytest: pip install pytest") from error


class RegularizerContract(SettingsContract, PartsContract):
    """Checks that each regularizer has to pass; subclass it in a test file.

    >>> from regularizers import EmbeddingDropout
    >>> class TestMine(RegularizerContract):
    ...     regularizer = EmbeddingDropout
    >>> len(TestMine.cases())
    3

    Attributes:
        regularizer: Class under test. Its strength is set by ``curriculum`` alone. The contract is
            checked for its defaults and for each value of each ``Literal`` or ``bool``.
        settings: Arguments without a default.
    """

    regularizer: ClassVar[type[Regularizer]]
    settings: ClassVar[dict[str, Any]] = {}

    @classmethod
    def cases(cls) -> list[Case]:
        """Return the cases to check: the class with different settings."""
        return cases_of(cls.regularizer, cls.settings)

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Run each check on each case."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", cls.cases(), ids=str)

    def test_strength_zero_is_plain_training(self, case: Case) -> None:
        """Strength 0 changes nothing, bit by bit."""
        step = make_step()
        assert_untouched(*observe(case.build(0.0), step), step, "strength 0")

    def test_eval_mode_is_a_no_op(self, case: Case) -> None:
        """Evaluation uses clean text."""
        step = make_step()
        assert_untouched(*observe(case.build(1.0), step, training=False), step, "eval mode")

    def test_full_strength_does_something(self, case: Case) -> None:
        """Strength 1 differs from strength 0."""
        # Long enough for documents with many preceding tokens.
        step = make_step(length=96)
        full, none = (observe(case.build(each), step)[0] for each in (1.0, 0.0))
        assert full != none, (
            "expected strength 1 to change the result of a hook, got the result of strength 0: "
            "does a hook use self.curriculum(step.progress)?"
        )

    def test_full_strength_changes_the_gradient(self, case: Case) -> None:
        """Strength 1 changes the gradient, not only a number."""
        step = make_step(length=96)
        full, none = (gradient(case.build(each), step) for each in (1.0, 0.0))
        assert not torch.equal(full, none), (
            "expected strength 1 to change the gradient, got the gradient of strength 0: an "
            "addition to the loss needs a gradient, which entropies have only with "
            "entropy_gradient=True"
        )

    def test_arguments_are_not_modified(self, case: Case) -> None:
        """No hook modifies its arguments in place."""
        model, regularizer = make_model(), case.build(1.0)
        regularizers = Regularizers([regularizer])
        step = provide(model, regularizers, make_step())
        with torch.no_grad():
            outputs = first_forward(model, regularizers, step)
            embeddings = model.embedding(step.input_ids)
        weight, mean = step.valid.float(), outputs.nll.mean()
        given = {"embeddings": embeddings, "token_weight": weight, "loss": mean}
        given |= {"step.alterable": step.alterable}
        given |= {f"step.{name}": value for name, value in vars(step).items()}
        given |= {f"outputs.{name}": value for name, value in vars(outputs).items()}
        before = [
            (name, tensor, tensor.clone(), tensor._version)
            for name, tensor in given.items()
            if isinstance(tensor, Tensor)
        ]
        # Called directly, because Regularizers would create the weights itself.
        regularizer.on_input_ids(step.input_ids, step)
        regularizer.on_embeddings(embeddings, step)
        regularizer.on_token_weight(weight, step)
        regularizer.on_token_loss(TokenLoss(outputs.nll, weight), outputs, step)
        regularizer.on_loss(mean, outputs, step)
        for name, tensor, copy, version in before:
            same = torch.equal(tensor.nan_to_num(-1.0), copy.nan_to_num(-1.0))
            kept = same and tensor._version == version
            assert kept, f"expected hooks to return new tensors, got one that modifies {name}"

    def test_draws_depend_on_the_step_alone(self, case: Case) -> None:
        """Random numbers come from the generator of the step, so a run can resume."""
        drawn, generator = [], TrainingStep.generator

        def spy(step: TrainingStep) -> torch.Generator:
            drawn.append(step)
            return generator(step)

        torch.manual_seed(1)
        state = torch.get_rng_state()
        with patch.object(TrainingStep, "generator", spy):
            first, _ = observe(case.build(0.5), make_step())
        assert torch.equal(torch.get_rng_state(), state), (
            "expected draws from step.generator(), got draws from the global generator"
        )
        torch.manual_seed(2)
        assert observe(case.build(0.5), make_step())[0] == first
        for name in ("seed", "global_step", "micro_batch", "rank"):
            other, _ = observe(case.build(0.5), make_step(**{name: 1}))
            assert (other != first) == bool(drawn), f"expected draws, if any, to depend on {name}"

    def test_gradients_reach_the_model_and_the_embeddings(self, case: Case) -> None:
        """All parameters have finite gradients."""
        model, regularizers = make_model(), Regularizers([case.build(0.3)])
        step = provide(model, regularizers, make_step())
        regularizers.mean_loss(first_forward(model, regularizers, step), step).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()
        embeddings = torch.randn(*step.input_ids.shape, 8, requires_grad=True)
        regularizers.on_embeddings(embeddings, step).square().sum().backward()
        assert embeddings.grad is not None
        assert embeddings.grad.any()

    def test_dtype_and_shape_are_kept(self, case: Case) -> None:
        """Embeddings of any precision keep it; losses are fp32."""
        regularizer, step = case.build(0.5), make_step()
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            embeddings = torch.randn(*step.input_ids.shape, 8, dtype=dtype)
            regularizers = Regularizers([regularizer])
            with_model = provide(make_model(), regularizers, step)
            perturbed = regularizers.on_embeddings(embeddings, with_model)
            assert (perturbed.dtype, perturbed.shape) == (dtype, embeddings.shape)
        observation, _ = observe(regularizer, step)
        assert observation.input_ids.dtype == torch.int64
        for tensor in (observation.input_ids, observation.loss, observation.weight):
            assert tensor.shape == step.input_ids.shape
        for tensor in (observation.loss, observation.weight, observation.mean):
            assert tensor.dtype == torch.float32
        assert observation.mean.shape == ()

    def test_special_and_padded_tokens_are_untouched(self, case: Case) -> None:
        """Control tokens never change, and tokens without a label have neither loss nor weight."""
        for draw in range(5):
            step = make_step(draw=draw)
            observation, _ = observe(case.build(1.0), step)
            untouched = ~step.alterable
            assert torch.equal(observation.input_ids[untouched], step.input_ids[untouched])
            clean = make_model().embedding(step.input_ids)
            assert torch.equal(observation.embeddings[untouched], clean[untouched])
            assert not observation.weight[~step.valid].any()
            assert not observation.loss[~step.valid].any()
            assert (observation.weight >= 0).all()

    def test_tokens_without_a_label_do_not_affect_the_loss(self, case: Case) -> None:
        """Predictions for padding and prompts do not affect the loss."""
        # Dropout would make the second passes differ.
        model, regularizers = ToyLM(), Regularizers([case.build(0.3)])
        step = provide(model, regularizers, make_step())
        outputs = first_forward(model, regularizers, step)
        uncounted = {
            name: getattr(outputs, name).where(step.valid, 9.0)
            for name in ("entropy", "logsumexp", "mean_logit")
        }
        expected = regularizers.mean_loss(outputs, step)
        assert torch.equal(regularizers.mean_loss(replace(outputs, **uncounted), step), expected)

    def test_embeddings_do_not_depend_on_later_tokens(self, case: Case) -> None:
        """No embedding depends on later tokens."""
        embeddings = torch.randn(3, 24, 8, requires_grad=True)
        regularizers = Regularizers([case.build(0.5)])
        step = provide(make_model(), regularizers, make_step())
        perturbed = regularizers.on_embeddings(embeddings, step)
        [slope] = torch.autograd.grad(perturbed[:, :12].square().sum(), embeddings)
        assert not slope[:, 12:].any()

    def test_changes_of_others_to_the_loss_are_kept(self, case: Case) -> None:
        """Tokens that others exclude stay excluded, and additions to the loss are kept."""
        model, regularizer = make_model(), case.build(0.3)
        regularizers = Regularizers([regularizer])
        step = provide(model, regularizers, make_step())
        outputs = first_forward(model, regularizers, step)
        odd = torch.arange(24) % 2 == 1
        weight = step.valid.float().masked_fill(odd, 0.0)
        plain, more = (
            regularizer.on_token_loss(TokenLoss(loss, weight), outputs, step)
            for loss in (outputs.nll, outputs.nll + step.valid)
        )
        for left_out in (regularizer.on_token_weight(weight, step), plain.weight):
            assert not left_out[:, odd].any()
        assert not torch.equal(more.loss, plain.loss)
        mean = outputs.nll.mean()
        means = (regularizer.on_loss(each, outputs, step) for each in (mean, mean + 1))
        assert not torch.equal(*means)

    def test_batches_without_labels_give_an_attached_zero(self, case: Case) -> None:
        """A rank with only padding takes part in the backward pass, with zero gradients."""
        ignored, padding = torch.full((3, 24), -100), torch.full((3, 24), -1)
        unknown = torch.full((3, 24), torch.nan)
        for step in (
            make_step(labels=ignored),
            make_step(labels=ignored, document_ids=padding, entropy=unknown, holdout_gain=unknown),
        ):
            model, regularizers = make_model(), Regularizers([case.build(0.5)])
            step = provide(model, regularizers, step)
            outputs = first_forward(model, regularizers, step)
            losses = (*regularizers.reduce(outputs, step), regularizers.mean_loss(outputs, step))
            for loss in losses:
                assert loss == 0
            losses[-1].backward()
            for parameter in model.parameters():
                assert parameter.grad is not None
                assert not parameter.grad.any()

    def test_unknown_entropies_leave_the_loss_finite(self, case: Case) -> None:
        """In the first epoch all entropies are unknown."""
        unknown = torch.full((3, 24), torch.nan)
        observation, _ = observe(case.build(0.5), make_step(entropy=unknown, holdout_gain=unknown))
        assert observation.loss.isfinite().all()
        assert observation.weight.isfinite().all()
        assert observation.mean.isfinite()

    def test_metrics_are_finite_detached_scalars(self, case: Case) -> None:
        """Logged values keep no graph in memory."""
        model, regularizers = make_model(), Regularizers([case.build(0.5)])
        step = provide(model, regularizers, make_step())
        regularizers.mean_loss(first_forward(model, regularizers, step), step)
        for name, value in step.metrics.items():
            assert name.startswith(f"{regularizers.names[0]}/")
            assert value.shape == ()
            assert value.isfinite()
            assert not value.requires_grad

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_device_is_kept_without_waiting_for_it(self, case: Case) -> None:
        """On a GPU no hook synchronizes with the host."""
        step, outputs = on_cuda(make_step())
        embeddings = torch.randn(*step.input_ids.shape, 8, device="cuda")
        regularizers = Regularizers([case.build(0.5)])
        for mode in ("default", "error"):  # the first pass fills caches
            torch.cuda.set_sync_debug_mode(mode)
            try:
                results = [
                    regularizers.on_input_ids(step),
                    regularizers.on_embeddings(embeddings, step),
                    *regularizers.reduce(outputs, step),
                ]
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert all(result.is_cuda for result in results)
