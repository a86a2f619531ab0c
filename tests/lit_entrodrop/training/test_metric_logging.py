from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from regularizers import EmbeddingDropout, Regularizer
from regularizers.adaptive import Adaptive
from regularizers.flooding import Flooding
from tests.helpers.tiny import Tiny


class Listen(Regularizer):
    """Keeps what it is told, and at which step."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, float]] = []

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        assert all(type(value) is float for value in metrics.values())
        self.told.append(dict(metrics))


def fit(tiny: Tiny, name: str, **settings: Any) -> tuple[Listen, Path]:
    """Fit for some epochs, validating before the first step and after each epoch."""
    listen, folder = Listen(), tiny.folder / name
    keep = ModelCheckpoint(folder, filename="{step}", save_top_k=-1)
    trainer = tiny.trainer(
        logger=MetricsFile(folder),
        callbacks=[keep],
        enable_checkpointing=True,
        num_sanity_val_steps=-1,
        max_epochs=settings.pop("max_epochs", 3),
    )
    trainer.fit(tiny.module(listen), datamodule=tiny.data(), **settings)
    return listen, folder


def test_each_evaluation_of_a_run_is_logged_once(tiny: Tiny) -> None:
    whole, folder = fit(tiny, "whole")
    written = read_metrics(folder).dropna(subset="val/loss")
    assert len(whole.told) == len(written) == 4
    for name in ("val/loss", "clean_train/loss", "gap/loss", "gap/loss_low_entropy"):
        told = [metrics[name] for metrics in whole.told]
        assert told == pytest.approx(written[name].tolist(), rel=1e-5)
        assert len(set(told)) == 4

    checkpoint = folder / "step=20.ckpt"
    resumed, _ = fit(tiny, "resumed", ckpt_path=checkpoint)
    # Validating once more before it goes on is no evaluation of the run.
    assert resumed.told == whole.told


@pytest.mark.parametrize(
    "follower", [EmbeddingDropout(Adaptive()), Flooding()], ids=["Adaptive", "Flooding"]
)
def test_without_validation_what_follows_it_is_refused(tiny: Tiny, follower: Regularizer) -> None:
    trainer = tiny.trainer(limit_val_batches=0)
    with pytest.raises(ValueError, match=r"expected validation, which .* set data.validation"):
        trainer.fit(tiny.module(follower), datamodule=tiny.data())
    trainer = tiny.trainer(limit_val_batches=0, max_steps=1)
    trainer.fit(tiny.module(Flooding(level=1.0)), datamodule=tiny.data())
    assert trainer.global_step == 1


def test_a_metric_of_no_evaluation_ends_the_run_before_training(tiny: Tiny) -> None:
    dropout = EmbeddingDropout(Adaptive(metric="val/los"))
    trainer = tiny.trainer(num_sanity_val_steps=-1)
    with pytest.raises(ValueError, match=r"got 'val/los': use one of clean_train/accuracy, "):
        trainer.fit(tiny.module(dropout), datamodule=tiny.data())
    assert trainer.global_step == 0
