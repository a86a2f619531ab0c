"""Teacher: the model under the average of its weights."""

import copy
from dataclasses import replace

import torch

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean
from lit_entrodrop.model.head.fused import FusedPredictions
from lit_entrodrop.training.averaging.weight_average import WeightAverage
from regularizers import Outputs, Requirements


class Teacher:
    """Runs a model under the average of its weights.

    Args:
        causal_lm: Trained model.
        average: Average of its weights.
    """

    def __init__(self, causal_lm: CausalLM, average: WeightAverage) -> None:
        self._causal_lm, self._average = causal_lm, average

    def __call__(self, batch: Batch, required: Requirements = NO_REQUIREMENTS) -> Outputs:
        """Run the teacher on the uncorrupted tokens of a batch, in train mode, without gradient.

        Dropout inside the model thus affects the teacher as it affects the model.
        """
        with self._average.in_place(), torch.no_grad():
            outputs = forward_clean(self._causal_lm, batch, required)
            if isinstance(outputs.predictions, FusedPredictions):
                # It runs after the model's own head has its weights back.
                head = copy.deepcopy(outputs.predictions.head).requires_grad_(False)
                outputs = replace(outputs, predictions=replace(outputs.predictions, head=head))
            return outputs
