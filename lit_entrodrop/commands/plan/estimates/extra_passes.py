"""Passes and outputs that regularizers add to a training step."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser
from torch import Tensor

from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean, score_clean
from lit_entrodrop.model.head.losses import HeadOutputs
from lit_entrodrop.model.token_outputs import token_outputs
from regularizers import Outputs, Regularizer, Regularizers, Requirements
from regularizers.local import Partner, partner_of


@dataclass(frozen=True)
class ExtraPasses:
    """Requirements of regularizers, from which the passes of a step follow."""

    required: Requirements = NO_REQUIREMENTS
    reads_outputs: bool = False  # whether hooks read the outputs
    reads_parts: bool = False  # whether the head calls these hooks, so that it has no second pass
    partner: Partner | None = None  # the pass that the head compares the first one with

    @property
    def passes(self) -> float:
        """Number of passes for which weights are gathered; a pass without gradient counts half.

        >>> ExtraPasses(Requirements(entropy="online", second_forward=True)).passes
        2.5
        """
        return 1.0 + self.required.second_forward + self.required.frozen_passes / 2

    def first(self, causal_lm: CausalLM, batch: Batch, token_weight: Tensor) -> Outputs:
        """Run the first pass, and the pass that the head compares it with."""
        run = partial(forward_clean, causal_lm, batch, self.required)
        if not self._in_head(causal_lm):
            return run(token_weight=None if self.reads_outputs else token_weight)
        if self.partner is None:
            return run(local_loss=lambda _, outputs: _every_statistic(outputs, self.required))
        own: Any = run(without_head=True)
        again = score_clean if self.partner == "reference" else forward_clean
        other: Any = again(causal_lm, batch, self.required, without_head=True)
        if self.partner == "reference":
            other = replace(other, head=copy.deepcopy(other.head).requires_grad_(False))
        rows = own.paired_loss(other, batch["labels"].flatten(), _both_directions)
        return token_outputs(rows, own.unpredicted)

    def after(self, causal_lm: CausalLM, batch: Batch, token_weight: Tensor) -> Iterator[Outputs]:
        """Run the extra passes of a step, on the model itself in place of reference and teacher."""
        in_head = self._in_head(causal_lm)
        partner = self.partner if in_head else None
        if self.required.reference and partner != "reference":
            yield score_clean(causal_lm, batch, self.required)
        if self.required.teacher is not None:
            yield score_clean(causal_lm, batch)
        if self.required.second_forward and partner != "second_forward":
            weight = token_weight if in_head else None
            yield forward_clean(causal_lm, batch, self.required, token_weight=weight)

    def _in_head(self, causal_lm: CausalLM) -> bool:
        return self.reads_parts and causal_lm.fused_head is not None


def _every_statistic(outputs: Outputs, required: Requirements) -> Tensor:
    loss = outputs.nll + outputs.logsumexp + outputs.mean_logit
    return (loss - outputs.entropy if required.entropy_gradient else loss).sum()


def _both_directions(
    rows: slice, own: HeadOutputs, other: HeadOutputs, divergences: tuple[Tensor, Tensor]
) -> Tensor:
    return (own.nll + other.nll + divergences[0] + divergences[1]).sum()


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
    partner = partner_of(built) if built.reads_parts else None
    return ExtraPasses(built.requirements, built.reads_outputs, built.reads_parts, partner)
