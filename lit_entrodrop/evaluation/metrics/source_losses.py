"""Loss by source of the text."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.evaluation.metrics.token_metrics import WIDEST
from regularizers.functional import IGNORE_INDEX, predicted_labels


def sums_by_source(batch: Mapping[str, Tensor], nll: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum the losses of the tokens that count, and count these tokens, by source of the row.

    Args:
        batch: Batch with ``source``, ``[B]`` int64 in 0..count-1.
        nll: Loss of each token, ``[B, T]`` nats.
        count: Number of sources.

    Returns:
        Sums in nats and numbers of tokens, ``[count]`` each.
    """
    valid = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
    numbers = torch.arange(count, device=nll.device)
    rows = (batch["source"] == numbers[:, None]).to(WIDEST)
    losses = nll.detach().to(WIDEST).masked_fill(~valid, 0).sum(1)
    return rows @ losses, rows @ valid.sum(1).to(WIDEST)


class SourceLosses(Metric):
    """Mean loss of each source of a split, in nats per token.

    Args:
        names: Names of the sources.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.add_state("sums", torch.zeros(2, len(names), dtype=WIDEST), dist_reduce_fx="sum")

    def update(self, batch: Mapping[str, Tensor], nll: Tensor) -> None:
        """Add the tokens of a batch; the arguments are those of `sums_by_source`."""
        self.sums += torch.stack(sums_by_source(batch, nll, len(self.names)))

    def compute(self) -> dict[str, Tensor]:
        """Return the loss of each source that has tokens, as ``NAME_loss``."""
        means = zip(self.names, *self.sums, strict=True)
        return {f"{name}_loss": (total / tokens).float() for name, total, tokens in means if tokens}
