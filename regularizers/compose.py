"""Several regularizers as one: applied in order, skipped in eval mode, refused where they clash."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from regularizers.base import Regularizer, Requirements, curricula_of
from regularizers.checking import require_well_formed
from regularizers.curricula import Curriculum
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep, Vocabulary


class Regularizers(nn.ModuleList):
    """An ordered list of regularizers with the hooks of a single one.

    Args:
        regularizers: applied in this order; empty means plain training.

    Raises:
        TypeError: if something else than a regularizer is given.
        ValueError: if the class of one has a common mistake, or if two of them ask for entropies
            from different sources, for two teachers, or for different numbers of holdout
            neighbours.

    >>> Regularizers([]).requirements.entropy is None
    True
    """

    def __init__(self, regularizers: Iterable[Regularizer] = ()) -> None:
        regularizers = list(regularizers)
        for regularizer in regularizers:
            require_well_formed(regularizer)
        super().__init__(regularizers)
        self.ordered = tuple(regularizers)
        self.names = _unique_names(regularizers)
        self.requirements = _merge(regularizers)
        self.reshapes_mean = any(overrides(type(each), "on_loss") for each in regularizers)
        self.reads_outputs = self.reshapes_mean or any(
            overrides(type(each), "on_token_loss") for each in regularizers
        )

    def check(self, vocabulary: Vocabulary) -> None:
        """Let each regularizer refuse the vocabulary or its company.

        Raises:
            ValueError: saying what does not fit and what to do.
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
        """Return the weight that each token has before the forward pass, ``[B, T]`` fp32."""
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
            outputs: of the forward pass.
            step: the step.
            token_weight: of :meth:`on_token_weight`, if it is at hand.
        """
        self._require_logits(outputs)
        if token_weight is None:
            token_weight = self.on_token_weight(step)
        token_loss = TokenLoss(outputs.nll, token_weight.to(outputs.nll.dtype))
        for regularizer, own_step in self._active(step):
            token_loss = regularizer.on_token_loss(token_loss, outputs, own_step)
            for returned in (token_loss.loss, token_loss.weight):
                _like(outputs.nll, returned, regularizer, "on_token_loss")
        return token_loss

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Return the mean loss of a micro-batch with all penalties, a scalar."""
        self._require_logits(outputs)
        for regularizer, own_step in self._active(step):
            reshaped = regularizer.on_loss(loss, outputs, own_step)
            loss = _like(loss, reshaped, regularizer, "on_loss")
        return loss

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Let each regularizer learn from an evaluation.

        Args:
            metrics: by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """
        for regularizer in self.ordered:
            regularizer.on_evaluation(metrics)

    def reduce(
        self, outputs: Outputs, step: TrainingStep, token_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the summed weight of a micro-batch, two scalars.

        Add up both over micro-batches and ranks and divide once: then the size of a micro-batch
        does not matter. A penalty counts with the weight of its micro-batch. Where no token
        counts, both are zero and the loss is still attached to the graph.

        Args:
            outputs: of the forward pass.
            step: the step.
            token_weight: of :meth:`on_token_weight`, if it is at hand.
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
        """Return where the curriculum of each regularizer that has one stands.

        Args:
            progress: share of all optimizer steps that are done, in [0, 1].

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

    def _active(self, step: TrainingStep) -> Iterator[tuple[Regularizer, TrainingStep]]:
        if not self.training:
            return
        self._require_inputs(step)
        for index, (name, regularizer) in enumerate(zip(self.names, self.ordered, strict=True)):
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
            "second_forward": (required.second_forward, step.second_forward),
            "reference": (required.reference, step.reference),
            "teacher": (required.teacher is not None, step.teacher),
            "holdout_gain": (required.holdout_neighbours is not None, step.holdout_gain),
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
    """Pass the result of an embedding look-up through a function while the context lasts.

    Args:
        embedding: the look-up module, e.g. ``model.get_input_embeddings()``.
        perturb: maps embeddings ``[B, T, D]`` to new ones.

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


def overrides(kind: type[Regularizer], hook: str) -> bool:
    """Tell whether a method has a hook of its own.

    >>> overrides(Regularizer, "on_loss")
    False
    """
    return getattr(kind, hook) is not getattr(Regularizer, hook)


def _like(expected: Tensor, returned: object, regularizer: Regularizer, hook: str) -> Tensor:
    if isinstance(returned, Tensor) and returned.shape == expected.shape:
        return returned
    got = list(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
    raise ValueError(
        f"{type(regularizer).__name__}.{hook}: expected a tensor of shape "
        f"{list(expected.shape)}, got {got}"
    )


def _unique_names(regularizers: list[Regularizer]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for regularizer in regularizers:
        # A word starts after a small letter, or after a single capital as in RDrop.
        words = r"(?<=[a-z])(?=[A-Z])|(?<=^[A-Z])(?=[A-Z][a-z])"
        name = re.sub(words, "_", type(regularizer).__name__).lower()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _merge(regularizers: list[Regularizer]) -> Requirements:
    switches = [each.name for each in fields(Requirements) if each.type is bool]
    switches.remove("evaluations")
    return Requirements(
        entropy=_one_for_all(regularizers, "entropy", "entropy source", "the same entropy_source"),
        teacher=_one_for_all(regularizers, "teacher", "teacher", "the same decay of its weights"),
        holdout_neighbours=_one_for_all(
            regularizers,
            "holdout_neighbours",
            "number of holdout neighbours",
            "the same neighbours",
        ),
        evaluations=any(map(_follows_evaluations, regularizers)),
        **{
            name: any(getattr(each.requirements, name) for each in regularizers)
            for name in switches
        },
    )


def _follows_evaluations(regularizer: Regularizer) -> bool:
    return regularizer.requirements.evaluations or any(
        type(each).on_evaluation is not Curriculum.on_evaluation
        for each in curricula_of(regularizer).values()
    )


def _one_for_all(regularizers: list[Regularizer], field: str, what: str, remedy: str) -> Any:
    wanted = [(type(each).__name__, getattr(each.requirements, field)) for each in regularizers]
    given = [(name, value) for name, value in wanted if value is not None]
    distinct = {value for _, value in given}
    if len(distinct) > 1:
        raise ValueError(
            f"regularizers: expected one {what} for all, got "
            f"{', '.join(f'{value} of {name}' for name, value in given)}: give them {remedy}"
        )
    return next(iter(distinct), None)
