"""What the regularizers of a config add to a training step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean, score_clean
from regularizers import Outputs, Regularizer, Regularizers, Requirements


@dataclass(frozen=True)
class Demands:
    """What a step takes beyond a forward and a backward pass.

    Args:
        required: by the regularizers, of the training loop.
        reads_outputs: whether the loss is known but after the forward pass.
    """

    required: Requirements = NO_REQUIREMENTS
    reads_outputs: bool = False

    @property
    def passes(self) -> float:
        """How often weights are gathered, in passes with gradient; one without is half of one.

        >>> Demands(Requirements(entropy="online", second_forward=True)).passes
        2.5
        """
        return 1.0 + self.required.second_forward + self.required.frozen_passes / 2

    def before(self, causal_lm: CausalLM, batch: Batch) -> None:
        """Run what comes before the pass that is trained."""
        if self.required.entropy == "online":
            score_clean(causal_lm, batch)

    def after(self, causal_lm: CausalLM, batch: Batch) -> Iterator[Outputs]:
        """Run the passes that a loss compares with; the model stands for reference and teacher."""
        if self.required.reference:
            yield score_clean(causal_lm, batch, self.required)
        if self.required.teacher is not None:
            yield score_clean(causal_lm, batch)
        if self.required.second_forward:
            yield forward_clean(causal_lm, batch, self.required)


NONE = Demands()


def demands_of(regularizers: list[dict[str, Any]]) -> Demands:
    """Return what regularizers demand.

    Args:
        regularizers: as a config names them.

    >>> demands_of([{"class_path": "regularizers.ReferenceKL"}]).required.reference
    True
    """
    parser = ArgumentParser()
    parser.add_argument("--regularizers", type=list[Regularizer])
    parsed = parser.parse_object({"regularizers": regularizers})
    built = Regularizers(parser.instantiate_classes(parsed).regularizers)
    return Demands(built.requirements, built.reads_outputs)
