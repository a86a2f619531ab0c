"""The loss of a Trainer's step under regularizers, and what lasts from step to step.

B rows in the batch, T tokens in a row, V vocabulary size.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from regularizers.compose import Regularizers
from regularizers.integrations.batches import documents_of, token_counts
from regularizers.integrations.entropies import DocumentEntropies, document_keys
from regularizers.integrations.frozen import scoring
from regularizers.integrations.metrics import MeanMetrics, batch_means
from regularizers.integrations.model_passes import Inputs, TrainerBatch, local
from regularizers.integrations.parameter_penalties import TrainerPenalties
from regularizers.outputs import Outputs
from regularizers.passes import RepeatedPass, perturbed_inputs, seed_dropout
from regularizers.training_step import TrainingStep, Vocabulary


class Regularization:
    """Regularizers of a Trainer, and the state that they need.

    Args:
        trainer: A ``transformers.Trainer`` that was built.
        regularizers: Regularizers in the order of their application.
        vocabulary: Vocabulary of the tokenizer.
        reference_model: Frozen model, if a regularizer needs one.
    """

    #: Names in the state of a checkpoint.
    STATE = frozenset({"source", "entropies", "regularizers", "initial_weights"})

    def __init__(
        self,
        trainer: Any,
        regularizers: Regularizers,
        vocabulary: Vocabulary,
        reference_model: nn.Module | None = None,
    ) -> None:
        self._trainer, self._vocabulary = trainer, vocabulary
        self.regularizers = regularizers.to(trainer.args.device)
        self.required = regularizers.requirements
        self.entropies = DocumentEntropies(gather_object)
        self._reference_model = reference_model
        self.start_from(trainer.model)
        self._token_counts: Tensor | None = None
        self._metrics = MeanMetrics(gather_object)
        self.start_step()

    def start_from(self, model: nn.Module) -> None:
        """Note the initial weights of a model that will be trained."""
        self._penalties = TrainerPenalties(self.regularizers, model)

    def start_training(self) -> None:
        """Prepare what the hooks need; the Trainer has placed its model on the device."""
        self.regularizers.train()
        self.start_step()
        if self.required.token_counts and self._token_counts is None:
            counts = token_counts(self._trainer.train_dataset, self._vocabulary.size)
            self._token_counts = counts.to(self._trainer.args.device)
        if self._reference_model is not None:
            prepare = self._trainer.accelerator.prepare_model
            frozen = self._reference_model.requires_grad_(False).eval()
            self._reference_model = prepare(frozen, evaluation_mode=True)

    def start_step(self) -> None:
        """Start to accumulate the micro-batches of an optimizer step."""
        self._micro_batch = 0
        self._totals = torch.zeros(2, device=self._trainer.args.device)
        self._unit: Tensor | float | None = None

    def loss(self, model: nn.Module, inputs: Inputs, num_items: Tensor | int | None) -> Tensor:
        """Return the loss of a micro-batch, summed over its tokens and divided by a constant.

        The constant is the number of labels in the step. :meth:`finish_step` replaces it by the
        weight of all tokens.

        Args:
            model: Trained model, as the Trainer wraps it.
            inputs: Batch of the collator.
            num_items: Number of labels in all micro-batches of all ranks; None if unknown.
        """
        documents = documents_of(inputs, self._vocabulary)
        coefficient = getattr(self._trainer, "router_aux_loss_coef", None)
        batch = TrainerBatch(inputs, documents, self.required, coefficient)
        step, note_entropy = self._describe(model, batch)
        seed_dropout(step)
        regularizers = self.regularizers
        if self.required.second_forward:
            # Under DDP, only the first pass synchronizes gradients.
            again = partial(batch.outputs, local(model))
            step = replace(step, second_forward=RepeatedPass(again, regularizers, step))
        token_weight = regularizers.on_token_weight(step)
        outputs = batch.outputs(model, *perturbed_inputs(regularizers, step))
        total, weight = regularizers.reduce(outputs, step, token_weight)
        note_entropy(outputs.entropy)
        if outputs.auxiliary_loss is not None:
            total = total + weight.detach() * outputs.auxiliary_loss
        self._totals += torch.stack([total, weight]).detach().to(self._totals)
        self._metrics.note({**batch_means(step, outputs), **step.metrics})
        accelerator = self._trainer.accelerator
        if self._unit is None:
            count = accelerator.reduce(step.valid.sum(), "sum") if num_items is None else num_items
            self._unit = torch.as_tensor(count, device=total.device).clamp(min=1)
        self._micro_batch += 1
        # DDP averages gradients over ranks.
        loss: Tensor = total * (accelerator.num_processes / self._unit)
        return loss

    def finish_step(self, model: nn.Module) -> Tensor:
        """Divide the accumulated gradient by the weight of all tokens, and return the mean loss.

        The weight is that of all micro-batches and ranks, which is known only now.
        """
        assert self._unit is not None, "a step has a micro-batch"
        sums: Tensor = self._trainer.accelerator.reduce(self._totals, "sum")
        total, weight = sums[0], sums[1].clamp(min=1e-8)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self._unit / weight)
        self._metrics.note(self._penalties.add(self._trainer.optimizer, self._progress))
        self.start_step()
        return total / weight

    def pop_metrics(self) -> dict[str, float]:
        """Return the means since the last call, over micro-batches and ranks."""
        return {**self._metrics.pop(), **self.regularizers.strengths(self._progress)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; call it on every rank."""
        return {
            "source": self.required.entropy,
            "entropies": self.entropies.state_dict(),
            "regularizers": self.regularizers.state_dict(),
            "initial_weights": self._penalties.hashes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Entropies from another source are not restored.
        """
        self.regularizers.load_state_dict(state["regularizers"])
        self._penalties.check_same_initial(state["initial_weights"])
        if state["source"] == self.required.entropy:
            self.entropies.load_state_dict(state["entropies"])

    @property
    def _progress(self) -> float:
        state = self._trainer.state
        return float(state.global_step / max(state.max_steps, 1))

    def _describe(
        self, model: nn.Module, batch: TrainerBatch
    ) -> tuple[TrainingStep, Callable[[Tensor], None]]:
        """Return the step of a micro-batch, and the function that takes its entropies."""
        trainer, required = self._trainer, self.required
        score = scoring(local(model), self._reference_model)
        reference = cache(partial(score, batch.outputs))
        ids: Tensor = batch.inputs["input_ids"]
        entropy, note = self._entropies(model, batch, reference)
        step = TrainingStep(
            ids,
            batch.inputs["labels"],
            batch.documents,
            self._vocabulary,
            entropy=entropy,
            corpus_entropy=self.entropies.quantiles.to(ids.device),
            token_counts=self._token_counts,
            progress=self._progress,
            global_step=trainer.state.global_step,
            epoch=int(trainer.state.epoch or 0),
            micro_batch=self._micro_batch,
            rank=trainer.accelerator.process_index,
            seed=trainer.args.seed,
            reference=reference if required.reference else None,
            gather=lambda values: trainer.accelerator.gather(values.detach()),
        )
        return step, note

    def _entropies(
        self, model: nn.Module, batch: TrainerBatch, reference: Callable[[], Outputs]
    ) -> tuple[Tensor | None, Callable[[Tensor], None]]:
        source, ids = self.required.entropy, batch.inputs["input_ids"]
        if source is None:
            return None, lambda _: None
        if source == "online":
            clean = scoring(local(model), local(model))
            return clean(batch.outputs).entropy, lambda _: None
        keys = document_keys(ids, batch.documents)
        known = self.entropies.lookup(keys).to(ids.device)
        if source == "last_epoch":
            return known, partial(self.entropies.record, keys)
        if not self.entropies.knows(keys):
            # From the second epoch on, this pass is not needed.
            known = reference().entropy.half().float()
            self.entropies.record(keys, known)
        return known, lambda _: None
