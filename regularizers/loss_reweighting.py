"""Dynamic loss-based reweighting: documents that are learned already count less."""

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
    """Weigh each sample by its loss, relative to the losses of all samples on all ranks.

    Args:
        losses: any shape, fp32; of the sample of which each element is a part.
        shares: same shape; what part of its sample each element is, so that those of one sample
            add up to 1; 0 where there is no sample.
        temperature: r, above 0; the higher, the more uniform.
        gather: concatenates the ``[1, 2]`` tensors of all ranks.

    Returns:
        The shape of the losses: n·w, which is 1 on average over all n samples; 1 where there is
        no sample.

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
    """Let documents of low loss count less.

    The samples are the packed documents, each as far as it lies within its row. Their mean losses
    l are scaled to h in [−1, 1] over the micro-batches of all ranks; the lower half then loses
    weight (LinUpper), the more the lower the temperature r:

        h = (2·l − max l − min l) / (max l − min l),   f = min(h + 1, 1),   w = softmax(f / r)
        L = Σ_i n·w_i Σ_t −ln p_θ(x_it) / N

    over n documents with N tokens in all. A document counts once in the softmax and by its tokens
    in the loss, as in the authors' code; documents of which no label counts take no part. Weights
    have no gradient. The paper's δ, the range of h, is 1, as only δ/r matters. The first losses
    say little: the authors leave the first 1,000 of 20,000 steps uniform, as the default
    curriculum does, or let r start high, as a curriculum of the temperature can.

    Source:
        Sow et al. 2025, arXiv 2502.06733, LinUpper; default r as in the authors' configurations.

    Args:
        curriculum: how far the weights are from 1, over training: 0 is plain training, 1 the
            method; a number is constant.
        temperature: r over training, above 0; a number is constant.

    Raises:
        ValueError: if a setting is out of range.

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
                f"got {lowest:g}: start high instead of at 0, and set no warmup"
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
