"""What a strategy cannot train is refused before anything is loaded."""

from typing import Any

import pytest

from lit_entrodrop.model.config import LMConfig, LoRAConfig, QuantizeConfig
from lit_entrodrop.training.strategies import DeepSpeedStrategy, FSDP2Strategy

DORA = {"lora": LoRAConfig(dora=True)}
FOUR_BITS = {"quantize": QuantizeConfig(), "lora": LoRAConfig()}


@pytest.mark.parametrize(
    ("strategy", "lm", "message"),
    [
        (FSDP2Strategy(), FOUR_BITS, "quantize: expected null under FSDP2Strategy, .* to ddp"),
        (FSDP2Strategy(tensor_parallel_size=2), DORA, "dora: expected false with tensor_parallel"),
        (DeepSpeedStrategy(stage=2), FOUR_BITS, "quantize: expected null under DeepSpeedStrategy"),
        (DeepSpeedStrategy(stage=3), DORA, "dora: expected false under DeepSpeed stage 3"),
    ],
)
def test_adapters_that_a_strategy_cannot_train_are_refused(
    strategy: Any, lm: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        strategy.check_lm(LMConfig(**lm))


def test_others_are_accepted() -> None:
    FSDP2Strategy().check_lm(LMConfig(**DORA))
    DeepSpeedStrategy(stage=2).check_lm(LMConfig(**DORA))
    for strategy in (FSDP2Strategy(tensor_parallel_size=2), DeepSpeedStrategy(stage=3)):
        strategy.check_lm(LMConfig(lora=LoRAConfig(init="pissa", rslora=True)))
