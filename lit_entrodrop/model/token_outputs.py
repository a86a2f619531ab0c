"""Outputs of the fused head as outputs of tokens, and objectives that read them.

B rows in the batch, T tokens in a row, n tokens in a part.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lit_entrodrop.model.head.losses import HeadOutputs, Objective
from lit_entrodrop.model.head.paired_loss import PairedObjective
from regularizers import Outputs
from regularizers.local import KnownDivergences

# Maps a slice of the tokens, and their outputs in one or two passes, to a scalar.
PartLoss = Callable[..., Tensor]


def token_outputs(rows: HeadOutputs, unpredicted: Tensor) -> Outputs:
    """Return the outputs of the head in the shape of a mask of the tokens that nothing predicts."""
    nll, entropy, logsumexp, mean_logit, correct = (row.view_as(unpredicted) for row in rows[:5])
    top_entropy = rows.top_entropy
    if top_entropy is not None:
        top_entropy = top_entropy.view_as(unpredicted).masked_fill(unpredicted, torch.nan)
    return Outputs(
        nll,
        entropy.masked_fill(unpredicted, torch.nan),
        logsumexp,
        mean_logit,
        correct,
        weighted_loss=rows.weighted_loss,
        top_entropy=top_entropy,
    )


def objective_of(local_loss: PartLoss, unpredicted: Tensor) -> Objective:
    """Return a local loss as a function of the outputs of the head.

    Args:
        local_loss: Function of a slice of the tokens and their outputs.
        unpredicted: Mask ``[B, T]`` bool of the tokens that nothing predicts.
    """
    flat = unpredicted.flatten()[None]
    return lambda rows, outputs: local_loss(rows, token_outputs(outputs, flat[:, rows]))


def paired_objective_of(local_loss: PartLoss, unpredicted: Tensor) -> PairedObjective:
    """Return a local loss as a function of the outputs of two passes and their divergences.

    The arguments are those of :func:`objective_of`.
    """
    flat = unpredicted.flatten()[None]

    def objective(
        rows: slice, own: HeadOutputs, other: HeadOutputs, divergences: tuple[Tensor, Tensor]
    ) -> Tensor:
        mask = flat[:, rows]
        forth, back = (each.view_as(mask).masked_fill(mask, 0.0) for each in divergences)
        first, second = (
            replace(token_outputs(each, mask), predictions=KnownDivergences(values))
            for each, values in ((own, (forth, back)), (other, (back, forth)))
        )
        return local_loss(rows, first, second)

    return objective
