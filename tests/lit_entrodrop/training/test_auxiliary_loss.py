from typing import Any

import pandas as pd
import pytest
import torch

from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from tests.helpers.tiny import LLAMA, Tiny

MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "output_router_logits": True}


def fitted(tiny: Tiny, coefficient: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the metrics and the weights after two steps of two micro-batches each."""
    folder = tiny.folder / str(coefficient)
    architecture = {**MIXTRAL, "router_aux_loss_coef": coefficient}
    torch.manual_seed(0)
    module = tiny.module(lm={"architecture": architecture})
    trainer = tiny.trainer(
        logger=MetricsFile(folder),
        max_steps=2,
        max_epochs=-1,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        num_sanity_val_steps=-1,
    )
    trainer.fit(module, datamodule=tiny.data())
    return read_metrics(folder), module.state_dict()


def test_a_router_is_balanced_and_its_loss_is_logged_apart(tiny: Tiny) -> None:
    plain, plain_weights = fitted(tiny, 0.0)
    balanced, weights = fitted(tiny, 0.5)
    assert "train/aux_loss" not in plain
    own = balanced["train/aux_loss"].dropna()
    assert len(own) == 2
    # Two of four experts: the loss of a balanced router is 2, times the coefficient.
    assert own.between(0.9, 1.5).all()
    # Both losses are cross-entropy alone: equal before the weights differ.
    for name in ("train/loss", "val/loss"):
        first, expected = balanced[name].dropna().iloc[0], plain[name].dropna().iloc[0]
        assert first == pytest.approx(expected, rel=1e-6)
    routers = [name for name in weights if "gate" in name and "proj" not in name]
    assert routers
    for name in routers:
        assert not torch.equal(weights[name], plain_weights[name])
