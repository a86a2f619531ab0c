"""Kullback-Leibler divergence between the predictions of two heads, over chunks of tokens.

N tokens, V vocabulary size.
"""

from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.model.head.autograd import first_order
from lit_entrodrop.model.head.logits import LinearHead, slices
from lit_entrodrop.model.head.paired_logits import PairedLogits, Settings, paired_settings, split


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_kl(
    first: LinearHead, second: LinearHead, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Compute KL(p ‖ q) and KL(q ‖ p) of each token, without materializing all logits.

    p is the softmax of ``first``, q of ``second``, and KL(p ‖ q) = Σ_v p_v (ln p_v − ln q_v). Both
    directions share the logits, so the second adds almost no cost. Both sides get gradients;
    detach the side that should get none. The backward pass recomputes the logits and rejects
    ``create_graph=True``: there is no second derivative.

    Used by R-Drop (Liang et al. 2021, arXiv 2106.14448, eq. 2: both directions of two passes over
    one head) and by distillation from a frozen model.

    Args:
        first: Head with N tokens and vocabulary size V. Its logits are computed in the dtype of its
            hidden states.
        second: Head with the same N and V; hidden dimensions may differ.
        chunk_size: Number of tokens per chunk; None for half of the default of the head.

    Returns:
        Two tensors ``[N]`` in nats, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: If shapes do not fit, or chunk_size is not a positive integer.
        RuntimeError: In the backward pass, if ``create_graph`` is set.

    >>> one, other = (LinearHead(torch.ones(1, 1), torch.tensor([[0.0], [z]])) for z in (0, 1))
    >>> linear_kl(one, other)
    (tensor([0.1201]), tensor([0.1109]))
    """
    settings = paired_settings("linear_kl", first, second, chunk_size)
    with torch.autocast(first.hidden.device.type, enabled=False):
        return _LinearKL.apply(settings, *first.tensors, *second.tensors)  # type: ignore[no-any-return, no-untyped-call]


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: Settings, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.settings = settings
        pair = PairedLogits(settings, tensors)
        divergences = tuple(memory.new_empty(pair.count) for memory in pair.softmaxes)
        for chunk in slices(0, pair.count, settings.chunk_size):
            for block in pair.blocks(chunk):
                block.compare(block.maxima())
                for total, softmax, ratio in zip(
                    divergences, block.softmaxes, block.logits, strict=True
                ):
                    total[block.rows] = softmax.mul_(ratio).sum(-1).clamp_(min=0.0)
        ctx.save_for_backward(*divergences, *tensors)
        return divergences

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        divergences, tensors = ctx.saved_tensors[:2], ctx.saved_tensors[2:]
        if all(each is None for each in upstream):
            return (None,) * len(ctx.needs_input_grad)
        needed = split(ctx.settings.sides, ctx.needs_input_grad[1:])
        with torch.autocast(divergences[0].device.type, enabled=False):
            pair = PairedLogits(ctx.settings, tensors)
            sides = [side for side in (0, 1) if any(needed[side])]
            sums = pair.gradient_sums(*needed)
            compared = any(upstream[side] is not None for side in sides)
            for chunk in slices(0, pair.count, ctx.settings.chunk_size):
                for block in pair.blocks(chunk, damped=True):
                    if compared:
                        block.compare(block.maxima())
                    known = [each[block.rows] for each in divergences]
                    given = [None if each is None else each[block.rows] for each in upstream]
                    for side in sides:
                        block.store_gradient(side, block.slope(side, known, given))
                for side in sides:
                    sums[side].add(chunk, pair.chunks[side][: chunk.stop - chunk.start])
            for place in pair.shared:
                # Autograd would add the shared sum twice.
                sums[1].totals[place] = None
        return None, *sums[0].results(), *sums[1].results()
