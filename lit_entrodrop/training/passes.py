"""Forward passes of a training step through the trained model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from regularizers import Outputs, Regularizers, TrainingStep
from regularizers.functional import IGNORE_INDEX, predicted_labels


def forward(
    causal_lm: CausalLM,
    regularizers: Regularizers,
    batch: Batch,
    input_ids: Tensor,
    perturb: Callable[[Tensor], Tensor] | None,
    token_weight: Tensor | None = None,
) -> Outputs:
    """Run the model on given inputs, with all labels of a batch.

    Args:
        causal_lm: Model.
        regularizers: Regularizers, whose requirements decide which outputs are computed.
        batch: Batch of labels, positions and documents.
        input_ids: Token ids, ``[B, T]`` int64.
        perturb: Function from embeddings ``[B, T, D]`` to perturbed ones; None for no perturbation.
        token_weight: Weight of each regularized token, ``[B, T]``, if it is known before the pass.
    """
    if token_weight is not None and (skipped := skipped_weight(batch)) is not None:
        token_weight = token_weight + skipped
    outputs: Outputs = causal_lm(
        input_ids,
        batch["labels"],
        batch["position_ids"],
        batch["document_ids"],
        perturb,
        None if regularizers.reads_outputs else token_weight,
        regularizers.requirements,
    )
    return outputs


def reduce(
    regularizers: Regularizers,
    outputs: Outputs,
    step: TrainingStep,
    token_weight: Tensor,
    batch: Batch,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the summed weight of a micro-batch, two scalars.

    Tokens of rows that regularizers skip have weight 1. The other arguments are those of `forward`.
    """
    loss, weight = regularizers.reduce(outputs, step, token_weight)
    if (skipped := skipped_weight(batch)) is None:
        return loss, weight
    if outputs.weighted_loss is None:
        loss = loss + (skipped * outputs.nll).sum()
    return loss, weight + skipped.sum()


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


def with_second_forward(
    step: TrainingStep, causal_lm: CausalLM, regularizers: Regularizers, batch: Batch
) -> TrainingStep:
    """Return a step that can run the model again, if a regularizer requires a second pass."""
    if not regularizers.requirements.second_forward:
        return step
    again = partial(_second_forward, step, causal_lm, regularizers, batch)
    return replace(step, second_forward=again)


def _second_forward(
    step: TrainingStep,
    causal_lm: CausalLM,
    regularizers: Regularizers,
    batch: Batch,
    input_ids: Tensor | None = None,
    perturb: Callable[[Tensor], Tensor] | None = None,
) -> Outputs:
    run = partial(forward, causal_lm, regularizers, batch)
    if input_ids is not None or perturb is not None:
        return run(batch["input_ids"] if input_ids is None else input_ids, perturb)
    # As in the first pass, these hooks may require a second one.
    step = with_second_forward(step, causal_lm, regularizers, batch)
    return run(regularizers.on_input_ids(step), partial(regularizers.on_embeddings, step=step))
