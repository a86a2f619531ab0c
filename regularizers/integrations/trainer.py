"""Regularizers inside ``transformers.Trainer`` and its subclasses."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from regularizers.compose import Regularizers
from regularizers.integrations.callback import RegularizationCallback
from regularizers.integrations.configs import Given, build_regularizers
from regularizers.integrations.refusals import check_trainer
from regularizers.integrations.regularization import Regularization
from regularizers.training_step import Vocabulary


class RegularizedTrainer(Trainer):
    """A ``transformers.Trainer`` that trains under regularizers.

    As the first base class, it adds regularizers to a subclass of ``transformers.Trainer``.

    The loss of training batches is replaced by the regularized one, a mean over the tokens of all
    micro-batches and ranks. Evaluation is unchanged. Documents are read from ``position_ids`` and
    ``attention_mask`` of the batches; their entropies of the last epoch are looked up by content.
    Without regularizers, the Trainer is unchanged.

    Args:
        args: Positional arguments of the Trainer.
        regularizers: Regularizers in the order of their application, or their settings: mappings
            with ``class_path`` and ``init_args``.
        reference_model: Frozen model, if a regularizer needs one; None for the model before
            training, if adapters of peft are trained.
        vocabulary: Vocabulary; None for that of ``processing_class``.
        kwargs: Other arguments of the Trainer.

    Raises:
        ValueError: If regularizers cannot work with the settings of the Trainer.
    """

    _regularization: Regularization | None = None

    def __init__(
        self,
        *args: Any,
        regularizers: Iterable[Given] = (),
        reference_model: nn.Module | None = None,
        vocabulary: Vocabulary | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.regularize(regularizers, reference_model, vocabulary)

    def regularize(
        self,
        regularizers: Iterable[Given],
        reference_model: nn.Module | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Train under other regularizers; for code that gets a Trainer already built.

        Args:
            regularizers: As in the constructor.
            reference_model: As in the constructor.
            vocabulary: As in the constructor.
        """
        self.remove_callback(RegularizationCallback)
        self._regularization = None
        chosen = Regularizers(build_regularizers(regularizers))
        if not chosen:
            return
        vocabulary = vocabulary or _vocabulary(self.processing_class)
        chosen.check(vocabulary)
        check_trainer(self, chosen, reference_model)
        self._regularization = Regularization(self, chosen, vocabulary, reference_model)
        self._regularization_callback = RegularizationCallback(self._regularization)
        self.add_callback(self._regularization_callback)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train, and restore the state of the regularizers from a checkpoint."""
        if self._regularization:
            output_dir = self.args.output_dir
            self._regularization_callback.resume_from(resume_from_checkpoint, output_dir)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def call_model_init(self, trial: Any = None) -> Any:
        """Return a new model, whose weights are the initial ones for regularizers."""
        model = super().call_model_init(trial)
        if self._regularization:
            self._regularization.start_from(model)
        return model

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the regularized loss in training, or the Trainer's own in evaluation."""
        if self._regularization and model.training:
            return self._regularization.loss(model, inputs, num_items_in_batch)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Run a micro-batch forward and backward; the last one of a step returns its mean loss."""
        if not self._regularization:
            return super().training_step(model, inputs, num_items_in_batch)
        micro_batches = self.current_gradient_accumulation_steps
        # The Trainer would divide by it if the model does not.
        self.current_gradient_accumulation_steps = 1
        super().training_step(model, inputs, num_items_in_batch)
        self.current_gradient_accumulation_steps = micro_batches
        if self.accelerator.sync_gradients:
            return self._regularization.finish_step(model)
        return torch.zeros((), device=self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the metrics and strengths of regularizers beside the training loss."""
        if self._regularization and "loss" in logs:
            logs = {**logs, **self._regularization.pop_metrics()}
        super().log(logs, *args, **kwargs)


def _vocabulary(processing_class: Any) -> Vocabulary:
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if tokenizer is None:
        raise ValueError(
            "regularizers: expected processing_class or vocabulary, because special tokens must "
            "not change, got neither: pass the tokenizer as processing_class"
        )
    return Vocabulary.of_tokenizer(tokenizer)
