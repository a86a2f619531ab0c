"""Loss of two passes over the same tokens, which may depend on the divergences between them.

N tokens, C tokens in a block, D hidden dimensions, V vocabulary size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.model.head.autograd import scale_gradients
from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.linear import linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead, slices
from lit_entrodrop.model.head.losses import HeadOutputs, gradients_of
from lit_entrodrop.model.head.paired_logits import (
    PairedBlock,
    PairedLogits,
    Settings,
    paired_settings,
    split,
)
from lit_entrodrop.model.head.torch_kernel import RowStatistics, blank_statistics
from regularizers.functional import IGNORE_INDEX

# Maps a slice of the tokens, the outputs of both heads, and KL(p ‖ q) and KL(q ‖ p) to a scalar.
PairedObjective = Callable[[slice, HeadOutputs, HeadOutputs, tuple[Tensor, Tensor]], Tensor]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_paired_loss(
    first: LinearHead,
    second: LinearHead,
    labels: Tensor,
    objective: PairedObjective,
    chunk_size: int | None = None,
) -> HeadOutputs:
    """Compute a loss of two heads and their divergences, over chunks of tokens.

    Gradients are computed in the forward pass: 4NDV operations for the logits, and 4NDV for each
    side that needs gradients. Entropies have none. In fp16, where gradients must not be rounded
    before the loss scale is known, the logits are computed three times.

    Args:
        first: Head with N tokens and vocabulary size V.
        second: Head with the same N and V; detach what needs no gradient.
        labels: Labels ``[N]`` int64; -100 is ignored.
        objective: Differentiable function that maps a slice of the tokens, the outputs of both
            heads, and both divergences, to a scalar, which is summed over slices.
        chunk_size: Number of tokens per chunk; None for half of the default of the head.

    Returns:
        The statistics of the first head, without gradient, and the loss as ``weighted_loss``.

    Raises:
        ValueError: If shapes do not fit, or chunk_size is not a positive integer.
        RuntimeError: In the backward pass, if ``create_graph`` is set.

    >>> one, other = (LinearHead(torch.ones(1, 1), torch.tensor([[0.0], [z]])) for z in (0, 1))
    >>> labels = torch.tensor([1])
    >>> linear_paired_loss(one, other, labels, lambda *parts: parts[-1][0].sum()).weighted_loss
    tensor(0.1201)
    """
    settings = paired_settings("linear_paired_loss", first, second, chunk_size)
    if torch.float16 in (side.dtype for side in settings.sides):
        return _recomputed(first, second, labels, objective, chunk_size)
    with torch.autocast(labels.device.type, enabled=False):
        loss, *statistics = _PairedLoss.apply(  # type: ignore[no-untyped-call]
            settings,
            labels,
            objective,
            torch.is_grad_enabled(),
            *first.tensors,
            *second.tensors,
        )
    return HeadOutputs(*statistics)._replace(weighted_loss=loss)


def _recomputed(
    first: LinearHead,
    second: LinearHead,
    labels: Tensor,
    objective: PairedObjective,
    chunk_size: int | None,
) -> HeadOutputs:
    own, other = (
        linear_ce_entropy(
            each.hidden,
            each.weight,
            labels,
            bias=each.bias,
            lora=each.lora,
            softcap=each.softcap,
            chunk_size=chunk_size,
        )
        for each in (first, second)
    )
    divergences = linear_kl(first, second, chunk_size)
    loss = objective(slice(0, len(labels)), own, other, divergences)
    return HeadOutputs(*(each.detach() for each in own[:5]))._replace(weighted_loss=loss)


class _PairedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        settings: Settings,
        labels: Tensor,
        objective: PairedObjective,
        needs_gradient: bool,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        pair = PairedLogits(settings, tensors, objective=True)
        needed = split(settings.sides, ctx.needs_input_grad[4:])
        sides = [side for side in (0, 1) if needs_gradient and any(needed[side])]
        sums = pair.gradient_sums(*needed)
        memory = torch.empty_like(pair.softmaxes[0])
        dtype = pair.softmaxes[0].dtype
        loss = torch.zeros((), dtype=dtype, device=labels.device)
        whole = blank_statistics(pair.count, dtype, labels.device)
        for chunk in slices(0, pair.count, settings.chunk_size):
            for block in pair.blocks(chunk, damped=bool(sides)):
                evaluated = _BlockLoss(block, labels[block.rows], memory)
                loss += evaluated.evaluate(objective, needs_gradient)
                for total, value in zip(whole, evaluated.statistics[0], strict=True):
                    total[block.rows] = value
                for side in sides:
                    block.store_gradient(side, evaluated.slope(side))
            for side in sides:
                sums[side].add(chunk, pair.chunks[side][: chunk.stop - chunk.start])
        for place in pair.shared:
            # Autograd would add the shared sum twice.
            sums[1].totals[place] = None
        ctx.mark_non_differentiable(*whole)
        ctx.save_for_backward(*sums[0].results(), *sums[1].results())
        return loss, *whole

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *scale_gradients(ctx, *upstream)


class _BlockLoss:
    """Statistics, divergences and gradients of a block of rows of both sides."""

    def __init__(self, block: PairedBlock, labels: Tensor, memory: Tensor) -> None:
        self.block, self.labels = block, labels
        self.memory = memory[: len(labels)]
        maxima = block.maxima()
        self.statistics = [self._statistics(side, *maxima[side]) for side in (0, 1)]
        block.compare(maxima)
        self.divergences = [
            torch.mul(softmax, ratio, out=self.memory).sum(-1).clamp_(min=0.0)
            for softmax, ratio in zip(block.softmaxes, block.logits, strict=True)
        ]

    def evaluate(self, objective: PairedObjective, needs_gradient: bool) -> Tensor:
        """Return the objective without gradient, and keep its gradients."""
        both: list[list[Tensor]] = [
            [each.detach() for each in statistics] for statistics in self.statistics
        ]
        leaves = [both[side][place] for side in (0, 1) for place in (0, 2, 3)]
        leaves += [each.detach() for each in self.divergences]
        for leaf in leaves:
            leaf.requires_grad_(needs_gradient)
        with torch.set_grad_enabled(needs_gradient):
            own, other = (HeadOutputs(*statistics) for statistics in both)
            value = objective(self.block.rows, own, other, (leaves[-2], leaves[-1]))
        found = gradients_of(value, leaves)
        self.of_statistics = found[:3], found[3:6]
        self.of_divergences = found[6:]
        return value.detach()

    def slope(self, side: int) -> Tensor:
        """Return the gradient with respect to the logits of a side."""
        nll, logsumexp, mean_logit = self.of_statistics[side]
        factor: Tensor | float = 0.0
        if nll is not None:
            nll = nll.masked_fill(self.labels == IGNORE_INDEX, 0.0)[:, None]
            factor = nll
        if logsumexp is not None:
            factor = factor + logsumexp[:, None]
        slope = self.block.slope(side, self.divergences, self.of_divergences, factor)
        if mean_logit is not None:
            slope.add_(mean_logit[:, None], alpha=1 / slope.shape[1])
        if nll is not None:
            slope.scatter_add_(1, self._places, -nll)
        return slope

    @property
    def _places(self) -> Tensor:
        return self.labels.masked_fill(self.labels == IGNORE_INDEX, 0)[:, None]

    def _statistics(self, side: int, highest: Tensor, log_sum: Tensor) -> RowStatistics:
        logits, softmax = self.block.logits[side], self.block.softmaxes[side]
        label_logit = logits.gather(-1, self._places).squeeze(-1) - highest
        shifted = torch.sub(logits, highest[:, None], out=self.memory)
        counted = self.labels != IGNORE_INDEX
        return RowStatistics(
            nll=(log_sum - label_logit).masked_fill(~counted, 0.0),
            entropy=(log_sum - shifted.mul_(softmax).sum(-1)).clamp_(min=0.0),
            logsumexp=highest + log_sum,
            mean_logit=logits.mean(-1),
            correct=counted & (label_logit >= 0),
        )
