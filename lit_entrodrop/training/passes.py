"""Forward passes of a training step through the trained model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from regularizers import Outputs, Regularizers, TrainingStep


def forward(
    causal_lm: CausalLM,
    regularizers: Regularizers,
    batch: Batch,
    input_ids: Tensor,
    perturb: Callable[[Tensor], Tensor] | None,
    token_weight: Tensor | None = None,
) -> Outputs:
    """Run the model on given inputs, with the labels of a batch.

    Args:
        causal_lm: Model.
        regularizers: Regularizers, whose requirements decide which outputs are computed.
        batch: Batch of labels, positions and documents.
        input_ids: Token ids, ``[B, T]`` int64.
        perturb: Function from embeddings ``[B, T, D]`` to perturbed ones; None for no perturbation.
        token_weight: Weight of each token, ``[B, T]``, if it is known before the pass.
    """
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
