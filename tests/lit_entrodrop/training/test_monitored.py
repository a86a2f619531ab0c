import re
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from lit_entrodrop.entropy.buckets import EntropyBuckets
from lit_entrodrop.evaluation.metrics.token_metric import is_better_if_lower
from lit_entrodrop.training.callbacks.checkpoints import Checkpoints
from lit_entrodrop.training.monitored import check_monitored_names
from tests.helpers.tiny import Tiny


class Foreign(L.Callback):
    """May log metrics of its own."""


def stopping(monitor: str) -> EarlyStopping:
    mode = "min" if is_better_if_lower(monitor) else "max"
    return EarlyStopping(monitor, patience=3, mode=mode)


@pytest.mark.parametrize(
    ("monitor", "data", "near"),
    [
        ("val_loss", {}, "val/loss"),
        ("val/loss_hihg_entropy", {}, "val/loss_high_entropy"),
        ("val/loss", {"validation": 0.0}, "train/loss"),
        ("clean_train/loss", {"clean_train_blocks": 0}, "train/loss"),
    ],
)
def test_unknown_metric_is_refused_before_the_model_is_built(
    tiny: Tiny, monitor: str, data: dict[str, Any], near: str
) -> None:
    module = tiny.module()
    trainer = tiny.trainer(callbacks=[stopping(monitor)])
    with pytest.raises(ValueError, match=rf"EarlyStopping.*got '{monitor}': set e\.g\. {near},"):
        trainer.fit(module, datamodule=tiny.data(**data))
    assert not hasattr(module, "causal_lm")


def test_every_metric_of_a_run_can_be_monitored(tiny: Tiny) -> None:
    module = tiny.module()
    trainer = tiny.trainer(max_steps=1, val_check_interval=1)
    trainer.fit(module, datamodule=tiny.data())
    logged = set(trainer.callback_metrics)
    named = module.metrics.names(module.data.evaluated)
    assert len(logged) > 20
    assert logged <= set(named)
    assert {name for name in set(named) - logged if not name.endswith("/memorized")} == set()
    check_monitored_names(tiny.trainer(callbacks=[*map(stopping, named)]), named)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Checkpoints(monitor="val/accuracy"), r"^checkpoints\.mode: expected max, .* got min"),
        (Checkpoints(monitor="val/loss", mode="max"), r"^checkpoints\.mode: expected min"),
        (EarlyStopping("task/rouge_l"), r"^trainer\.callbacks: EarlyStopping\.mode: expected max"),
    ],
)
def test_worst_value_is_not_taken_for_the_best(
    tiny: Tiny, callback: L.Callback, message: str
) -> None:
    names = ["val/loss", "val/accuracy", "task/rouge_l"]
    with pytest.raises(ValueError, match=message):
        check_monitored_names(tiny.trainer(callbacks=[callback], enable_checkpointing=True), names)


def test_metric_of_a_foreign_callback_is_not_refused(tiny: Tiny) -> None:
    trainer = tiny.trainer(callbacks=[stopping("mine"), Foreign()])
    check_monitored_names(trainer, ["val/loss"])


@pytest.mark.parametrize("sanity", [-1, 0])
def test_monitored_bucket_without_a_label_is_refused(tiny: Tiny, sanity: int) -> None:
    module = tiny.module(entropy_buckets=EntropyBuckets(edges=[50.0]))
    trainer = tiny.trainer(
        callbacks=[stopping("val/loss_high_entropy")], num_sanity_val_steps=sanity
    )
    problem = "EarlyStopping.monitor: expected a finite val/loss_high_entropy, got nan"
    with pytest.raises(ValueError, match=re.escape(problem)):
        trainer.fit(module, datamodule=tiny.data())
    assert trainer.global_step == 0 or sanity == 0
