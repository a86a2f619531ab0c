"""Forward passes on the uncorrupted tokens of a batch."""

from typing import Any

from torch import Tensor

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.probing import eval_mode
from regularizers import Outputs, Requirements

Batch = dict[str, Tensor]


def forward_clean(
    causal_lm: CausalLM, batch: Batch, required: Requirements = NO_REQUIREMENTS, **options: Any
) -> Outputs:
    """Run a model on the uncorrupted tokens of a batch; options are those of the model."""
    outputs: Outputs = causal_lm(
        batch["input_ids"],
        batch["labels"],
        batch["position_ids"],
        batch["document_ids"],
        required=required,
        **options,
    )
    return outputs


def score_clean(
    causal_lm: CausalLM, batch: Batch, required: Requirements = NO_REQUIREMENTS, **options: Any
) -> Outputs:
    """Run a model on the uncorrupted tokens of a batch in eval mode, without gradient.

    Options are those of the model.
    """
    with eval_mode(causal_lm):
        return forward_clean(causal_lm, batch, required, **options)
