"""Passes and outputs that regularizers add to a training step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean, score_clean
from regularizers import Outputs, Regularizer, Regularizers, Requirements


@dataclass(frozen=True)
class ExtraPasses:
    """Requirements of regularizers, from which the passes of a step follow."""

    required: Requirements = NO_REQUIREMENTS
    reads_outputs: bool = False  # the loss can only be computed after the forward pass

    @property
    def passes(self) -> float:
        """Number of passes for which weights are gathered; a pass without gradient counts half.

        >>> ExtraPasses(Requirements(entropy="online", second_forward=True)).passes
        2.5
        """
        return 1.0 + self.required.second_forward + self.required.frozen_passes / 2

    def after(self, causal_lm: CausalLM, batch: Batch) -> Iterator[Outputs]:
        """Run the extra passes of a step, on the model itself in place of reference and teacher."""
        if self.required.reference:
            yield score_clean(causal_lm, batch, self.required)
        if self.required.teacher is not None:
            yield score_clean(causal_lm, batch)
        if self.required.second_forward:
            yield forward_clean(causal_lm, batch, self.required)


NO_EXTRA_PASSES = ExtraPasses()


def extra_passes_of(regularizers: list[dict[str, Any]]) -> ExtraPasses:
    """Return the passes that the regularizers of a config add.

    >>> extra_passes_of([{"class_path": "regularizers.ReferenceKL"}]).required.reference
    True
    """
    parser = ArgumentParser()
    parser.add_argument("--regularizers", type=list[Regularizer])
    parsed = parser.parse_object({"regularizers": regularizers})
    built = Regularizers(parser.instantiate_classes(parsed).regularizers)
    return ExtraPasses(built.requirements, built.reads_outputs)
