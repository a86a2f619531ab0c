"""The smallest model and training loop that provide everything a regularizer may require."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from regularizers.base import Regularizer, Requirements
from regularizers.compose import Regularizers, perturbed_embeddings
from regularizers.functional import document_positions
from regularizers.outputs import Outputs
from regularizers.parameters import ParameterPart
from regularizers.training_step import TrainingStep


class ToyLM(nn.Module):
    """A fast causal LM whose hidden state is the mean of all embeddings so far.

    Its dropout draws from its own generator, seeded by the number of calls: two passes differ, and
    two new models do not.
    """

    def __init__(
        self,
        vocabulary_size: int = 64,
        dimensions: int = 8,
        seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.calls = 0
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(
            vocabulary_size,
            dimensions,
            _weight=torch.randn(vocabulary_size, dimensions, generator=generator),
        )
        self.head = nn.Parameter(torch.randn(vocabulary_size, dimensions, generator=generator))

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding module, as Transformers models do."""
        return self.embedding

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits, ``[B, T, V]``."""
        embeddings = self.embedding(input_ids)
        places = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        hidden = embeddings.cumsum(1) / places[:, None]
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        kept = torch.rand(hidden.shape, generator=generator) >= self.dropout
        logits: Tensor = (hidden * kept.to(hidden)) @ self.head.T
        return logits


def make_teacher() -> ToyLM:
    """Return a model with other weights than a :class:`ToyLM`, and a higher loss on any batch."""
    teacher = ToyLM(seed=2)
    with torch.no_grad():
        teacher.head.mul_(2)
    return teacher


def logits_of(model: nn.Module, input_ids: Tensor, document_ids: Tensor) -> Tensor:
    """Run the model on packed documents, ``[B, T, V]``."""
    if isinstance(model, ToyLM):
        return model.forward(input_ids)
    output = model(
        input_ids=input_ids,
        position_ids=document_positions(document_ids),
        attention_mask=None,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


@dataclass(frozen=True)
class DivergenceOnly:
    """Predictions that provide their divergence, and nothing else."""

    outputs: Outputs

    def kl_divergences(self, other: "DivergenceOnly") -> tuple[Tensor, Tensor]:
        """Return KL(self ‖ other) and KL(other ‖ self) of each token, ``[B, T]`` nats each."""
        return self.outputs.kl_divergences(other.outputs)


def forward_with(
    model: nn.Module,
    step: TrainingStep,
    input_ids: Tensor,
    perturb: Callable[[Tensor], Tensor],
    required: Requirements,
) -> Outputs:
    """Run the model with perturbed embeddings, and return only what is required."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    with perturbed_embeddings(embedding, perturb):
        logits = logits_of(model, input_ids, step.document_ids)
    outputs = Outputs.from_logits(
        logits, step.labels, step.document_ids, required.entropy_gradient, required.top_entropy
    )
    if required.logits:
        return outputs
    return replace(
        outputs, logits=None, predictions=DivergenceOnly(outputs) if required.divergence else None
    )


def first_forward(model: nn.Module, regularizers: Regularizers, step: TrainingStep) -> Outputs:
    """Run the forward pass of a training step, corrupted and perturbed."""
    input_ids = regularizers.on_input_ids(step)
    return forward_with(
        model,
        step,
        input_ids,
        lambda embeddings: regularizers.on_embeddings(embeddings, step),
        regularizers.requirements,
    )


def provide(
    model: nn.Module,
    regularizers: Regularizers,
    step: TrainingStep,
    reference_model: nn.Module | None = None,
) -> TrainingStep:
    """Return the step with everything that the regularizers require, and nothing else.

    The teacher is :func:`make_teacher`.

    Args:
        model: The trained model.
        regularizers: Regularizers of the run.
        step: The training step.
        reference_model: Reference model; None for a :class:`ToyLM` with other weights.
    """

    def second_forward(
        input_ids: Tensor | None = None, perturb: Callable[[Tensor], Tensor] | None = None
    ) -> Outputs:
        if input_ids is None and perturb is None:
            return first_forward(model, regularizers, provided)
        given = step.input_ids if input_ids is None else input_ids
        return forward_with(model, step, given, perturb or _unchanged, required)

    @torch.no_grad()
    def run_frozen(frozen: nn.Module) -> Outputs:
        return forward_with(frozen, step, step.input_ids, _unchanged, required)

    required = regularizers.requirements
    frozen = reference_model or ToyLM(seed=1).to(step.input_ids.device)
    teacher = make_teacher().to(step.input_ids.device)
    provided = replace(
        step,
        entropy=step.entropy if required.entropy else None,
        corpus_entropy=step.corpus_entropy if required.entropy else None,
        token_counts=step.token_counts if required.token_counts else None,
        second_forward=second_forward if required.second_forward else None,
        reference=partial(run_frozen, frozen) if required.reference else None,
        teacher=None if required.teacher is None else partial(run_frozen, teacher),
        holdout_gain=None if required.holdout_neighbors is None else step.holdout_gain,
    )
    return provided


def training_loss(
    regularizer: Regularizer,
    model: nn.Module,
    step: TrainingStep,
    reference_model: nn.Module | None = None,
) -> Tensor:
    """Return the loss of one training step under one regularizer, a scalar with gradient.

    >>> from regularizers import EmbeddingDropout
    >>> from regularizers.testing import make_step
    >>> training_loss(EmbeddingDropout(0.0), ToyLM(), make_step()).isfinite()
    tensor(True)
    """
    regularizers = Regularizers([regularizer])
    regularizers.check(step.vocabulary)
    step = provide(model, regularizers, step, reference_model)
    loss = regularizers.mean_loss(first_forward(model, regularizers, step), step)
    return loss + penalty_on(model, regularizers, step.progress)


def penalty_on(model: nn.Module, regularizers: Regularizers, progress: float) -> Tensor:
    """Return the penalties on the parameters of a model, a scalar with gradient, if any.

    Their initial values are the present ones times 0.9.
    """
    penalty = torch.zeros((), device=next(model.parameters()).device)
    required = regularizers.requirements
    for name, parameter in model.named_parameters():
        values = parameter.flatten()
        initial = 0.9 * values.detach() if required.initial_weights else None
        seen = ParameterPart(name, values, initial)
        for _, _, added in regularizers.on_parameter(seen, progress):
            penalty = penalty + added
    return penalty


def _unchanged(embeddings: Tensor) -> Tensor:
    return embeddings
