"""Compose several regularizers: apply them in order, skip them in eval mode, reject conflicts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn

from regularizers.base import Reads, Regularizer, overrides
from regularizers.checking import require_well_formed
from regularizers.curricula import Curriculum
from regularizers.merging import merged_requirements, reads_parts, unique_names
from regularizers.outputs import Outputs, TokenLoss
from regularizers.parameters import ParameterPart
from regularizers.training_step import TrainingStep, Vocabulary


class Regularizers(nn.ModuleList):
    """An ordered list of regularizers with the hooks of a single one.

    Args:
        regularizers: Regularizers in the order of their application; empty for plain training.

    Raises:
        TypeError: If an item is not a regularizer.
        ValueError: If a class has a common mistake, or if two regularizers require entropies from
            different sources, different teachers, or different numbers of holdout neighbors.

    >>> Regularizers([]).requirements.entropy is None
    True
    """

    def __init__(self, regularizers: Iterable[Regularizer] = ()) -> None:
        regularizers = list(regularizers)
        for regularizer in regularizers:
            require_well_formed(regularizer)
        super().__init__(regularizers)
        self.ordered = tuple(regularizers)
        self.names = unique_names(regularizers)
        self.requirements = merged_requirements(regularizers)
        self.reshapes_mean = any(overrides(type(each), "on_loss") for each in regularizers)
        self.penalizes_parameters = any(
            overrides(type(each), "on_parameter") for each in regularizers
        )
        self.reads_outputs = self.reshapes_mean or any(
            overrides(type(each), "on_token_loss") for each in regularizers
        )
        #: Whether a head may call the hooks with parts of the tokens; False calls them once.
        self.reads_parts = reads_parts(regularizers)

    def check(self, vocabulary: Vocabulary) -> None:
        """Let each regularizer reject the vocabulary or the combination.

        Raises:
            ValueError: If one cannot work; the message names a remedy.
        """
        for regularizer in self.ordered:
            others = [other for other in self.ordered if other is not regularizer]
            regularizer.check(vocabulary, others)

    def on_input_ids(self, step: TrainingStep) -> Tensor:
        """Return the corrupted token ids, ``[B, T]`` int64."""
        input_ids = step.input_ids
        for regularizer, own_step in self._active(step):
            corrupted = regularizer.on_input_ids(input_ids, own_step)
            input_ids = _like(input_ids, corrupted, regularizer, "on_input_ids")
        return input_ids

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Return the perturbed embeddings, ``[B, T, D]``."""
        for regularizer, own_step in self._active(step):
            perturbed = regularizer.on_embeddings(embeddings, own_step)
            embeddings = _like(embeddings, perturbed, regularizer, "on_embeddings")
        return embeddings

    def on_token_weight(self, step: TrainingStep) -> Tensor:
        """Return the weight of each token before the forward pass, ``[B, T]`` fp32."""
        weight = step.valid.float()
        for regularizer, own_step in self._active(step):
            weighed = regularizer.on_token_weight(weight, own_step)
            weight = _like(weight, weighed, regularizer, "on_token_weight")
        return weight

    def on_token_loss(
        self, outputs: Outputs, step: TrainingStep, token_weight: Tensor | None = None
    ) -> TokenLoss:
        """Return loss and weight of each token, ``[B, T]`` each.

        Args:
            outputs: Outputs of the forward pass.
            step: The training step.
            token_weight: Result of :meth:`on_token_weight`, if already computed.
        """
        self._require_logits(outputs)
        if token_weight is None:
            token_weight = self.on_token_weight(step)
        token_loss = TokenLoss(outputs.nll, token_weight.to(outputs.nll.dtype))
        return self.change_token_loss(token_loss, outputs, step)

    def change_token_loss(
        self,
        token_loss: TokenLoss,
        outputs: Outputs,
        step: TrainingStep,
        reads: Reads | None = None,
    ) -> TokenLoss:
        """Return a changed loss and weight of each token.

        Args:
            token_loss: Loss and weight before.
            outputs: Outputs of the forward pass.
            step: The training step.
            reads: Which regularizers to run, by what they read; None for all.
        """
        for regularizer, own_step in self._active(step, reads):
            token_loss = regularizer.on_token_loss(token_loss, outputs, own_step)
            for returned in (token_loss.loss, token_loss.weight):
                _like(outputs.nll, returned, regularizer, "on_token_loss")
        return token_loss

    def on_loss(
        self, loss: Tensor, outputs: Outputs, step: TrainingStep, reads: Reads | None = None
    ) -> Tensor:
        """Return the mean loss of a micro-batch with all penalties, a scalar."""
        self._require_logits(outputs)
        for regularizer, own_step in self._active(step, reads):
            reshaped = regularizer.on_loss(loss, outputs, own_step)
            loss = _like(loss, reshaped, regularizer, "on_loss")
        return loss

    def on_parameter(
        self, parameter: ParameterPart, progress: float
    ) -> Iterator[tuple[str, Regularizer, Tensor]]:
        """Yield name, regularizer and penalty, a scalar, of each penalty on a parameter."""
        for name, regularizer in zip(self.names, self.ordered, strict=True):
            penalty = regularizer.on_parameter(parameter, progress) if self.training else None
            if penalty is not None:
                _like(parameter.values.sum(), penalty, regularizer, "on_parameter")
                yield f"{name}/penalty", regularizer, penalty

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Pass an evaluation to each regularizer.

        Args:
            metrics: Metrics by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """
        for regularizer in self.ordered:
            regularizer.on_evaluation(metrics)

    def reduce(
        self, outputs: Outputs, step: TrainingStep, token_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the summed weight of a micro-batch, two scalars.

        Sum both over micro-batches and ranks and divide once; the result does not depend on the
        size of a micro-batch. A penalty has the weight of its micro-batch. If no token counts, both
        are zero and the loss still has a gradient.

        Args:
            outputs: Outputs of the forward pass.
            step: The training step.
            token_weight: Result of :meth:`on_token_weight`, if already computed.
        """
        if outputs.weighted_loss is not None and token_weight is not None:
            assert not (self.training and self.reads_outputs), "these outputs carry no gradient"
            return outputs.weighted_loss, token_weight.sum()
        token_loss = self.on_token_loss(outputs, step, token_weight)
        weight = token_loss.weight.sum()
        loss = (token_loss.weight * token_loss.loss).sum()
        if not (self.training and self.reshapes_mean):
            return loss, weight
        mean = loss / weight.clamp(min=1e-8)
        return self.on_loss(mean, outputs, step) * weight, weight

    def mean_loss(self, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Return the training loss of one batch, a scalar, for loops without accumulation."""
        loss, weight = self.reduce(outputs, step)
        return loss / weight.clamp(min=1e-8)

    def strengths(self, progress: float) -> dict[str, float]:
        """Return the current strength of each regularizer with a curriculum.

        Args:
            progress: Fraction of all optimizer steps that are done, in [0, 1].

        >>> from regularizers import EmbeddingDropout
        >>> Regularizers([EmbeddingDropout(0.1)]).strengths(0.5)
        {'embedding_dropout/strength': 0.1}
        """
        curricula = {
            name: getattr(regularizer, "curriculum", None)
            for name, regularizer in zip(self.names, self.ordered, strict=True)
        }
        return {
            f"{name}/strength": curriculum(progress)
            for name, curriculum in curricula.items()
            if isinstance(curriculum, Curriculum)
        }

    def _active(
        self, step: TrainingStep, reads: Reads | None = None
    ) -> Iterator[tuple[Regularizer, TrainingStep]]:
        if not self.training:
            return
        self._require_inputs(step)
        for index, (name, regularizer) in enumerate(zip(self.names, self.ordered, strict=True)):
            if reads is not None and regularizer.requirements.reads != reads:
                continue
            own_step = replace(step, stream=index, metrics={})
            yield regularizer, own_step
            step.metrics.update({f"{name}/{key}": v for key, v in own_step.metrics.items()})

    def _require_logits(self, outputs: Outputs) -> None:
        if self.training and self.requirements.logits and outputs.logits is None:
            raise ValueError(
                f"a regularizer of {self.names} requires Outputs.logits, got None: "
                "the training loop must provide them"
            )

    def _require_inputs(self, step: TrainingStep) -> None:
        required = self.requirements
        provided = {
            "entropy": (required.entropy, step.entropy),
            "token_counts": (required.token_counts, step.token_counts),
            "second_forward": (required.second_forward, step.second_forward),
            "reference": (required.reference, step.reference),
            "teacher": (required.teacher is not None, step.teacher),
            "holdout_gain": (required.holdout_neighbors is not None, step.holdout_gain),
        }
        for name, (wanted, given) in provided.items():
            if wanted and given is None:
                raise ValueError(
                    f"a regularizer of {self.names} requires TrainingStep.{name}"
                    f"{f' (from {wanted})' if name == 'entropy' else ''}, got None: "
                    "the training loop must provide it"
                )


@contextmanager
def perturbed_embeddings(
    embedding: nn.Module, perturb: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Apply a function to the output of an embedding module inside the context.

    Args:
        embedding: Embedding module, e.g. ``model.get_input_embeddings()``.
        perturb: Function that maps embeddings ``[B, T, D]`` to new ones.

    >>> import torch
    >>> table = nn.Embedding(2, 3)
    >>> with perturbed_embeddings(table, torch.zeros_like):
    ...     table(torch.tensor([1])).sum().item()
    0.0
    """
    handle = embedding.register_forward_hook(lambda _module, _args, output: perturb(output))
    try:
        yield
    finally:
        handle.remove()


def _like(expected: Tensor, returned: object, regularizer: Regularizer, hook: str) -> Tensor:
    if isinstance(returned, Tensor) and returned.shape == expected.shape:
        return returned
    got = list(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
    raise ValueError(
        f"{type(regularizer).__name__}.{hook}: expected a tensor of shape "
        f"{list(expected.shape)}, got {got}"
    )
