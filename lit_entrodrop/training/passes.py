"""Forward passes of a training step through the trained model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.model.head.fused import FusedPredictions
from lit_entrodrop.model.token_outputs import paired_objective_of, token_outputs
from regularizers import Outputs, Regularizers, TrainingStep
from regularizers.functional import IGNORE_INDEX, predicted_labels
from regularizers.local import LocalLoss, share_gradient
from regularizers.passes import Perturb, RepeatedPass, perturbed_inputs


def regularized_loss(
    causal_lm: CausalLM,
    regularizers: Regularizers,
    batch: Batch,
    step: TrainingStep,
    score: Callable[..., Any] | None = None,
) -> tuple[Outputs, Tensor, Tensor]:
    """Corrupt the tokens, perturb their embeddings, weight them, predict, add penalties.

    Args:
        causal_lm: Model.
        regularizers: Regularizers.
        batch: Batch of labels, positions and documents.
        step: The training step.
        score: Function that runs the reference model; None if there is none.

    Returns:
        Outputs of the forward pass, the loss summed over tokens, and the sum of their weights.
    """
    run = partial(_forward, causal_lm, regularizers, batch)
    again = _SecondForward(run, regularizers, step)
    if regularizers.requirements.second_forward:
        step = replace(step, second_forward=again)
    inputs = perturbed_inputs(regularizers, step)
    first = partial(run, *inputs)
    token_weight, skipped = regularizers.on_token_weight(step), skipped_weight(batch)
    skipped_total = 0.0 if skipped is None else skipped.sum()
    if _reads_parts(causal_lm, regularizers, skipped):
        if regularizers.requirements.second_forward:
            step = replace(step, second_forward=replace(again, token_weight=token_weight))
        local_loss = LocalLoss(regularizers, step, token_weight, skipped)
        partners = {"second_forward": again.predictions}
        if score is not None:
            partners["reference"] = partial(score, batch, without_head=True)
        outputs = _local_outputs(first, partners, local_loss, batch)
        loss, weight = local_loss.reduce(outputs)
        return outputs, loss, weight + skipped_total
    known = token_weight if skipped is None else token_weight + skipped
    outputs = first(token_weight=None if regularizers.reads_outputs else known)
    loss, weight = regularizers.reduce(outputs, step, token_weight)
    if skipped is not None and outputs.weighted_loss is None:
        loss = loss + (skipped * outputs.nll).sum()
    return outputs, loss, weight + skipped_total


def _reads_parts(causal_lm: CausalLM, regularizers: Regularizers, skipped: Tensor | None) -> bool:
    """Return whether the fused head can evaluate the loss of a step, part by part."""
    # The loss of skipped tokens must not be transformed with that of the others.
    transforms = any(each.requirements.reads == "loss" for each in regularizers.ordered)
    possible = causal_lm.fused_head is not None and not (transforms and skipped is not None)
    return possible and regularizers.training and regularizers.reads_parts


def _local_outputs(
    first: Callable[..., Any],
    partners: Mapping[str, Callable[[], FusedPredictions]],
    local_loss: LocalLoss,
    batch: Batch,
) -> Outputs:
    """Run the model, and the pass that its predictions are compared with, if any."""
    if local_loss.partner is None:
        outputs: Outputs = first(local_loss=local_loss)
        return outputs
    own, other = first(without_head=True), partners[local_loss.partner]()
    labels = predicted_labels(batch["labels"], batch["document_ids"]).flatten()
    rows = own.paired_loss(other, labels, paired_objective_of(local_loss, own.unpredicted))
    return replace(token_outputs(rows, own.unpredicted), auxiliary_loss=own.auxiliary_loss)


def _forward(
    causal_lm: CausalLM,
    regularizers: Regularizers,
    batch: Batch,
    input_ids: Tensor,
    perturb: Callable[[Tensor], Tensor] | None,
    **options: Any,
) -> Any:
    """Run the model on given inputs, with all labels of a batch.

    Args:
        causal_lm: Model.
        regularizers: Regularizers, whose requirements decide which outputs are computed.
        batch: Batch of labels, positions and documents.
        input_ids: Token ids, ``[B, T]`` int64.
        perturb: Function from embeddings ``[B, T, D]`` to perturbed ones; None for no perturbation.
        options: Further arguments of :meth:`CausalLM.forward`.
    """
    return causal_lm(
        input_ids,
        batch["labels"],
        batch["position_ids"],
        batch["document_ids"],
        perturb,
        required=regularizers.requirements,
        **options,
    )


def tokens_to_regularize(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, labels and document numbers, in which rows that regularizers skip are padding.

    Regularizers neither change padding nor count it.
    """
    labels, document_ids = batch["labels"], batch["document_ids"]
    if "unregularized" in batch:
        skipped = batch["unregularized"][:, None]
        labels, document_ids = (
            labels.masked_fill(skipped, IGNORE_INDEX),
            document_ids.masked_fill(skipped, -1),
        )
    return batch["input_ids"], labels, document_ids


def skipped_weight(batch: Batch) -> Tensor | None:
    """Return the weight of each token in a row that regularizers skip, ``[B, T]`` fp32."""
    if "unregularized" not in batch:
        return None
    counted = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
    return (counted & batch["unregularized"][:, None]).float()


def with_auxiliary_loss(loss: Tensor, weight: Tensor, outputs: Outputs) -> Tensor:
    """Add the loss of the model itself to the summed loss of a micro-batch.

    It has the weight of its micro-batch, like a penalty. After the division by the weight of all
    micro-batches and ranks, it is a weighted mean over them.
    """
    own = outputs.auxiliary_loss
    return loss if own is None else loss + weight.detach() * own


@dataclass(frozen=True)
class _SecondForward(RepeatedPass):
    """Run the model again.

    With known weights of the tokens, their losses share the gradient of the weighted loss.
    """

    token_weight: Tensor | None = None

    def __call__(self, input_ids: Tensor | None = None, perturb: Perturb | None = None) -> Outputs:
        outputs: Outputs = self.run(input_ids, perturb, token_weight=self.token_weight)
        summed, weight = outputs.weighted_loss, self.token_weight
        if summed is None or weight is None:
            return outputs
        return replace(outputs, nll=share_gradient(outputs.nll, summed, weight.sum()))

    def predictions(self) -> FusedPredictions:
        """Repeat the first pass, without its head."""
        predictions: FusedPredictions = self.run(without_head=True)
        return predictions
