"""Loss of each document, as input to statistical tests over documents."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.entropy.buckets import bucket_of
from lit_entrodrop.evaluation.metrics.token_metrics import WIDEST


class DocumentLosses(Metric):
    """Summed loss (nats) and tokens of each document, over all tokens and by entropy bucket.

    Args:
        num_documents: Number of documents in the split, D.
        buckets: Names of the K entropy buckets, from low to high.

    >>> losses = DocumentLosses(2, ["low", "high"])
    >>> losses.update(torch.tensor([1.0, 2.0]), torch.ones(2).bool(), torch.tensor([1, 1]))
    >>> losses.compute()[0][:, 0].tolist()
    [0.0, 3.0]
    """

    full_state_update = False
    nll: Tensor
    tokens: Tensor

    def __init__(self, num_documents: int, buckets: Sequence[str]) -> None:
        super().__init__()
        shape = (num_documents, 1 + len(buckets))
        self.add_state("nll", default=torch.zeros(shape, dtype=WIDEST), dist_reduce_fx="sum")
        self.add_state("tokens", default=torch.zeros(shape).long(), dist_reduce_fx="sum")

    def update(
        self,
        nll: Tensor,
        valid: Tensor,
        document: Tensor,
        reference_entropy: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> None:
        """Add the tokens of a batch.

        Args:
            nll: Loss of each token in a forward pass on clean input, ``[B, T]`` nats.
            valid: Whether each token counts, ``[B, T]`` bool.
            document: Index of each token's document in the split, ``[B, T]`` int64.
            reference_entropy: Entropy under the reference model, ``[B, T]`` nats; NaN if unknown.
            edges: Entropies between the buckets, ``[K - 1]`` nats.
        """
        nll, document = nll[valid].to(WIDEST), document[valid]
        columns = [torch.zeros_like(document)]
        if reference_entropy is not None and edges is not None:
            columns.append(1 + bucket_of(reference_entropy[valid], edges))
        for column in columns:
            # The unknown bucket, -1, would count in the column of all tokens.
            known = (column > 0) | (column is columns[0])
            place = (document * self.nll.shape[1] + column)[known]
            self.nll.view(-1).index_add_(0, place, nll[known])
            self.tokens.view(-1).index_add_(0, place, torch.ones_like(place))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return loss and number of tokens, ``[D, 1 + K]`` each; column 0 covers all tokens."""
        return self.nll, self.tokens
