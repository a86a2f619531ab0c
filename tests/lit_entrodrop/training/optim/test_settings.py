from functools import partial
from typing import Any

import pytest
import torch

from lit_entrodrop.training.optim import (
    check_can_step,
)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SparseAdam, {}),
        (torch.optim.Muon, {}),
        (torch.optim.AdamW, {"lr": -1.0}),
        (torch.optim.SGD, {"lr": float("inf")}),
    ],
)
def test_optimizer_that_cannot_step_is_refused(kind: Any, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"model\.optimizer: expected"):
        check_can_step(partial(kind, **settings))
