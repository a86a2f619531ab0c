"""What every regularizer owes its users, as checks on a class and its settings.

A check takes a :class:`Case`. Strength reaches a regularizer through ``curriculum`` alone; its
other settings are found in its signature: every value of a ``Literal`` or ``bool`` makes a case.
"""

import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from regularizers import Outputs, Regularizer, Regularizers, TrainingStep
from tests.helpers.loop import ToyLM, first_forward, provide
from tests.helpers.steps import make_step


@dataclass(frozen=True)
class Case:
    """A class of regularizers with settings other than its strength."""

    kind: type[Regularizer]
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, strength: float, **more: Any) -> Regularizer:
        """Build the regularizer with a constant strength."""
        make: Callable[..., Regularizer] = self.kind
        return make(curriculum=strength, **self.settings, **more)

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.kind.__name__}({settings})"


def cases_of(kind: type[Regularizer]) -> list[Case]:
    """Return a case for the defaults and one for each other value of each choice."""
    signature = inspect.signature(kind)
    unset = [name for name, given in signature.parameters.items() if given.default is given.empty]
    assert "curriculum" in signature.parameters, f"{kind.__name__} takes no curriculum"
    assert not unset, f"{kind.__name__}: give {unset} defaults, so that the contract can be tested"
    cases = [Case(kind)]
    for name, hint in get_type_hints(kind.__init__).items():
        choices = (False, True) if hint is bool else get_args(hint)
        if hint is bool or get_origin(hint) is Literal:
            default = signature.parameters[name].default
            cases += [Case(kind, {name: value}) for value in choices if value != default]
    return cases


@dataclass(frozen=True)
class Observation:
    """Everything that a regularizer may change in one step."""

    input_ids: Tensor
    embeddings: Tensor
    token_weight: Tensor
    loss: Tensor
    weight: Tensor
    penalty: Tensor

    def __eq__(self, other: object) -> bool:
        return all(
            torch.equal(getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        )


def make_model() -> ToyLM:
    return ToyLM(dropout=0.1)


def observe(
    regularizer: Regularizer, step: TrainingStep, *, training: bool = True
) -> tuple[Observation, Outputs]:
    """Take a step with one regularizer on a fresh model."""
    model = make_model()
    regularizers = Regularizers([regularizer]).train(training)
    step = provide(model, regularizers, step)
    outputs = first_forward(model, regularizers, step)
    token_loss = regularizers.on_token_loss(outputs, step)
    observation = Observation(
        regularizers.on_input_ids(step),
        regularizers.on_embeddings(model.embedding(step.input_ids), step),
        regularizers.on_token_weight(step),
        token_loss.loss,
        token_loss.weight,
        regularizers.on_penalty(outputs, step),
    )
    return observation, outputs


def assert_untouched(observation: Observation, outputs: Outputs, step: TrainingStep) -> None:
    assert torch.equal(observation.input_ids, step.input_ids)
    assert torch.equal(observation.embeddings, make_model().embedding(step.input_ids))
    assert torch.equal(observation.loss, outputs.nll)
    assert torch.equal(observation.token_weight, step.valid.float())
    assert torch.equal(observation.weight, step.valid.float())
    assert observation.penalty == 0


def identity_at_strength_zero(case: Case) -> None:
    step = make_step()
    assert_untouched(*observe(case.build(0.0), step), step)


def eval_mode_is_a_no_op(case: Case) -> None:
    step = make_step()
    assert_untouched(*observe(case.build(1.0), step, training=False), step)


def full_strength_does_something(case: Case) -> None:
    step = make_step()
    assert observe(case.build(1.0), step)[0] != observe(case.build(0.0), step)[0]


def arguments_are_not_modified(case: Case) -> None:
    model, regularizers = make_model(), Regularizers([case.build(1.0)])
    step = provide(model, regularizers, make_step())
    with torch.no_grad():
        outputs = first_forward(model, Regularizers(), step)
        embeddings = model.embedding(step.input_ids)
    given = [value for value in vars(step).values() if isinstance(value, Tensor)]
    given += [embeddings, *(value for value in vars(outputs).values() if value is not None)]
    before = [(tensor.clone(), tensor._version) for tensor in given]
    regularizers.on_input_ids(step)
    regularizers.on_embeddings(embeddings, step)
    regularizers.on_token_weight(step)
    regularizers.on_token_loss(outputs, step)
    regularizers.on_penalty(outputs, step)
    for tensor, (copy, version) in zip(given, before, strict=True):
        assert tensor._version == version
        assert torch.equal(tensor.nan_to_num(-1.0), copy.nan_to_num(-1.0))


def draws_depend_on_the_step_alone(case: Case) -> None:
    drawn, generator = [], TrainingStep.generator

    def spy(step: TrainingStep) -> torch.Generator:
        drawn.append(step)
        return generator(step)

    torch.manual_seed(1)
    state = torch.get_rng_state()
    with patch.object(TrainingStep, "generator", spy):
        first, _ = observe(case.build(0.5), make_step())
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(2)
    assert observe(case.build(0.5), make_step())[0] == first
    for name in ("seed", "global_step", "micro_batch", "rank"):
        other, _ = observe(case.build(0.5), make_step(**{name: 1}))
        assert (other != first) == bool(drawn), f"drawn: {bool(drawn)}, but not by {name}"


def gradients_reach_the_model_and_the_embeddings(case: Case) -> None:
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


def dtype_and_shape_are_kept(case: Case) -> None:
    regularizer, step = case.build(0.5), make_step()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        embeddings = torch.randn(*step.input_ids.shape, 8, dtype=dtype)
        perturbed = Regularizers([regularizer]).on_embeddings(embeddings, with_model(step))
        assert (perturbed.dtype, perturbed.shape) == (dtype, embeddings.shape)
    observation, _ = observe(regularizer, step)
    assert observation.input_ids.dtype == torch.int64
    for tensor in (observation.input_ids, observation.loss, observation.weight):
        assert tensor.shape == step.input_ids.shape
    for tensor in (observation.loss, observation.weight, observation.penalty):
        assert tensor.dtype == torch.float32
    assert observation.penalty.shape == ()


def with_model(step: TrainingStep) -> TrainingStep:
    return provide(make_model(), Regularizers(), step)


def special_and_padded_tokens_are_untouched(case: Case) -> None:
    for draw in range(5):
        step = make_step(draw=draw)
        observation, _ = observe(case.build(1.0), step)
        untouched = ~step.alterable
        assert torch.equal(observation.input_ids[untouched], step.input_ids[untouched])
        clean = make_model().embedding(step.input_ids)
        assert torch.equal(observation.embeddings[untouched], clean[untouched])
        assert not observation.weight[~step.valid].any()


def batches_without_labels_give_an_attached_zero(case: Case) -> None:
    ignored, padding = torch.full((3, 24), -100), torch.full((3, 24), -1)
    unknown = torch.full((3, 24), torch.nan)
    for step in (
        make_step(labels=ignored),
        make_step(labels=ignored, document_ids=padding, entropy=unknown),
    ):
        model, regularizers = make_model(), Regularizers([case.build(0.5)])
        step = provide(model, regularizers, step)
        outputs = first_forward(model, regularizers, step)
        for loss in (*regularizers.reduce(outputs, step), regularizers.mean_loss(outputs, step)):
            assert loss == 0
        regularizers.mean_loss(outputs, step).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert not parameter.grad.any()


def unknown_entropies_leave_the_loss_finite(case: Case) -> None:
    step = make_step(entropy=torch.full((3, 24), torch.nan))
    observation, _ = observe(case.build(0.5), step)
    assert observation.loss.isfinite().all()
    assert observation.weight.isfinite().all()
    assert observation.penalty.isfinite()


def metrics_are_finite_detached_scalars(case: Case) -> None:
    model, regularizers = make_model(), Regularizers([case.build(0.5)])
    step = provide(model, regularizers, make_step())
    regularizers.mean_loss(first_forward(model, regularizers, step), step)
    for name, value in step.metrics.items():
        assert name.startswith(f"{regularizers.names[0]}/")
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad


def copies_behave_alike(case: Case) -> None:
    regularizer = case.build(0.5)
    copy = pickle.loads(pickle.dumps(regularizer))
    assert observe(copy, make_step())[0] == observe(regularizer, make_step())[0]


def bad_strengths_are_refused(case: Case) -> None:
    for strength in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"[Cc]urriculum|strength"):
            case.build(strength)
    if takes_strength_above_one(case):
        # What is no probability takes it at its word, rather than as 1.
        excessive, full = (observe(case.build(strength), make_step())[0] for strength in (1.5, 1.0))
        assert excessive != full
    else:
        with pytest.raises(ValueError, match="curriculum"):
            case.build(1.5)


def takes_strength_above_one(case: Case) -> bool:
    try:
        case.build(1.5)
    except ValueError:
        return False
    return True


def bad_settings_are_refused_by_name(case: Case) -> None:
    for name, hint in get_type_hints(case.kind.__init__).items():
        if name in case.settings or name == "curriculum":
            continue
        bad = "no such choice" if get_origin(hint) is Literal else math.nan
        if get_origin(hint) is Literal or hint is float:
            with pytest.raises(ValueError, match=name):
                case.build(0.5, **{name: bad})


CHECKS: list[Callable[[Case], None]] = [
    identity_at_strength_zero,
    eval_mode_is_a_no_op,
    full_strength_does_something,
    arguments_are_not_modified,
    draws_depend_on_the_step_alone,
    gradients_reach_the_model_and_the_embeddings,
    dtype_and_shape_are_kept,
    special_and_padded_tokens_are_untouched,
    batches_without_labels_give_an_attached_zero,
    unknown_entropies_leave_the_loss_finite,
    metrics_are_finite_detached_scalars,
    copies_behave_alike,
    bad_strengths_are_refused,
    bad_settings_are_refused_by_name,
]


def assert_stays_on_cuda_without_waiting(case: Case) -> None:
    """Run all hooks on a GPU, where a copy to or from the host that waits raises."""
    step = make_step()
    moved: dict[str, Any] = {
        name: value.cuda() for name, value in vars(step).items() if isinstance(value, Tensor)
    }
    step = replace(step, **moved)
    embeddings = torch.randn(*step.input_ids.shape, 8, device="cuda")
    outputs = Outputs.from_logits(
        torch.randn(*step.input_ids.shape, 64, device="cuda"), step.labels, step.document_ids
    )
    step = replace(
        step, second_forward=lambda *_args, **_kwargs: outputs, reference=lambda: outputs
    )
    regularizers = Regularizers([case.build(0.5)])
    for mode in ("default", "error"):  # the first round may fill caches
        torch.cuda.set_sync_debug_mode(mode)
        try:
            results = [
                regularizers.on_input_ids(step),
                regularizers.on_embeddings(embeddings, step),
            ]
            results += [*regularizers.reduce(outputs, step)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(result.is_cuda for result in results)
