from typing import Any

import pytest
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_entrodrop.training.preflight.config import check_trainer, warn_of_few_steps
from regularizers import EntroDrop, Requirements
from tests.helpers.deepspeed_cpu import DeepSpeedOnCPU
from tests.helpers.tiny import Tiny


@pytest.mark.parametrize("settings", [{"precision": "bf16-true"}, {"overfit_batches": 2}])
def test_unsound_trainer_is_refused(tiny: Tiny, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.(precision|overfit_batches): expected"):
        check_trainer(tiny.trainer(**settings), Requirements())


def test_sharding_strategy_of_lightning_is_refused(tiny: Tiny) -> None:
    trainer = tiny.trainer(strategy=ModelParallelStrategy())
    with pytest.raises(ValueError, match=r"got lightning\..*\.ModelParallelStrategy"):
        check_trainer(trainer, Requirements())


def test_strategy_whose_weights_cannot_be_averaged_is_refused(tiny: Tiny) -> None:
    trainer = tiny.trainer(strategy=DeepSpeedOnCPU(stage=2))
    check_trainer(trainer, Requirements())
    with pytest.raises(ValueError, match=r"trainer\.strategy: expected auto, ddp or fsdp2 .*got"):
        check_trainer(trainer, Requirements(teacher=0.9))


def test_too_few_steps_are_reported_with_the_remedy(recwarn: pytest.WarningsRecorder) -> None:
    teacher, entropies = Requirements(teacher=0.99), Requirements(entropy="last_epoch")
    warn_of_few_steps(teacher, 1000, 100)
    warn_of_few_steps(entropies, 200, 100)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"about 100 steps, and this run has 40: .* set a warmup"):
        warn_of_few_steps(teacher, 40, 10)
    with pytest.warns(UserWarning, match="no token will be dropped"):
        warn_of_few_steps(entropies, 100, 100)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_single_epoch_without_entropies_is_reported(tiny: Tiny, accumulate: int) -> None:
    trainer = tiny.trainer(max_epochs=1, accumulate_grad_batches=accumulate)
    module = tiny.module(EntroDrop(entropy_source="last_epoch"))
    with pytest.warns(UserWarning, match="this run has one epoch, in which none is known"):
        trainer.fit(module, datamodule=tiny.data())
