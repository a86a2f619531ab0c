"""Dynamic loss-based reweighting: reduce the weight of documents that are already learned."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Constant, Curriculum, as_curriculum, require_probability
from regularizers.functional import document_mean, document_sum
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep, gather_single_rank


def lin_upper_weights(
    losses: Tensor,
    shares: Tensor,
    temperature: float,
    gather: Callable[[Tensor], Tensor] = gather_single_rank,
) -> Tensor:
    """Weight each sample by its loss, relative to the losses of all samples on all ranks.

    Args:
        losses: Loss of the sample of each element, any shape, fp32.
        shares: Fraction of its sample that each element is, same shape; those of one sample sum to
            1. 0 where there is no sample.
        temperature: Temperature r, above 0; higher values give more uniform weights.
        gather: Function that concatenates the ``[1, 2]`` tensors of all ranks.

    Returns:
        The weights n·w, same shape, which average to 1 over all n samples; 1 where there is no
        sample.

    >>> lin_upper_weights(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), 1.0)
    tensor([0.4661, 1.2670, 1.2670])
    """
    absent = shares == 0
    lowest = losses.masked_fill(absent, torch.inf).amin()
    highest = losses.masked_fill(absent, -torch.inf).amax()
    bounds = gather(torch.stack([lowest, highest])[None])
    lowest, highest = bounds[:, 0].amin(), bounds[:, 1].amax()
    scaled = 2 * (losses - (lowest + highest) / 2) / (highest - lowest).clamp(min=1e-6)
    # The softmax of min(h + 1, 1) is that of min(h, 0), which cannot overflow.
    score = (scaled.clamp(max=0) / temperature).exp().masked_fill(absent, 0.0)
    total, samples = gather(torch.stack([(score * shares).sum(), shares.sum()])[None]).sum(0)
    weights: Tensor = samples * score / total
    return weights.masked_fill(absent, 1.0)


class LossReweighting(Regularizer):
    """Reduce the weight of documents with a low loss.

    Samples are the parts of packed documents within one row. Their mean losses l are scaled to h in
    [−1, 1] over the micro-batches of all ranks. The lower half then loses weight (LinUpper); a
    lower temperature r increases the effect:

        h = (2·l − max l − min l) / (max l − min l),   f = min(h + 1, 1),   w = softmax(f / r)
        L = Σ_i n·w_i Σ_t −ln p_θ(x_it) / N

    over n documents with N tokens in all. A document counts once in the softmax and by its tokens
    in the loss, as in the authors' code. Documents without a label that counts are ignored.
    Weights have no gradient. The paper's δ, the range of h, is 1, because only δ/r matters. The
    first losses carry little information. The authors therefore keep the first 1,000 of 20,000
    steps uniform, like the default curriculum, or start with a high r, like a curriculum of r.

    Source:
        Sow et al. 2025, arXiv 2502.06733, LinUpper; default r as in the authors' configurations.

    Args:
        curriculum: Interpolation between uniform weights (0) and the method (1), over training; a
            number is constant.
        temperature: Temperature r over training, above 0; a number is constant.

    Raises:
        ValueError: If a setting is out of range.

    >>> LossReweighting().curriculum(0.04)
    0.0
    """

    def __init__(
        self,
        curriculum: Curriculum | float = Constant(value=1.0, warmup=0.05),  # noqa: B008
        temperature: Curriculum | float = 0.4,
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("LossReweighting curriculum", self.curriculum)
        self.temperature = as_curriculum(temperature)
        lowest = min(map(self.temperature, self.temperature.probes()))
        if not lowest > 0:
            raise ValueError(
                "LossReweighting temperature: expected numbers above 0 throughout training, "
                f"got {lowest:g}: start above 0, and set no warmup"
            )

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Multiply the loss of each token by the weight of its document."""
        strength = self.curriculum(step.progress)
        temperature = self.temperature(step.progress)
        losses = document_mean(outputs.nll.detach(), step.valid, step.document_ids)
        counted = step.valid.float()
        shares = counted / document_sum(counted, step.document_ids).clamp(min=1)
        weights = lin_upper_weights(losses, shares, temperature, step.gather)
        step.log("temperature", torch.tensor(temperature))
        return replace(token_loss, loss=token_loss.loss * (1 + strength * (weights - 1)))
