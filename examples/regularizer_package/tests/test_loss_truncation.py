"""Loss truncation fulfills the contract and matches the paper."""

import numpy as np
import pytest
import torch
from acme_regularizers.loss_truncation import LossTruncation, truncated_weight

from regularizers.testing import RegularizerContract


class TestLossTruncation(RegularizerContract):
    """All checks of the contract."""

    regularizer = LossTruncation


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_mean_of_the_lowest_losses(share: float) -> None:
    """The weighted mean equals the mean of the sorted losses without the highest."""
    nll = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = truncated_weight(nll, torch.ones(3, 7), share)
    lowest = np.sort(nll.numpy().ravel())[: int((1 - share) * 21)]
    assert ((weight * nll).sum() / weight.sum()).item() == pytest.approx(lowest.mean(), rel=1e-12)
