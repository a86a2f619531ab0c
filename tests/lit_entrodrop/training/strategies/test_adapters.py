"""Adapters under each strategy; what it cannot train is refused before anything is loaded."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from lit_entrodrop.model.config import LMConfig, LoRAConfig, QuantizeConfig
from lit_entrodrop.training.strategies import DeepSpeedStrategy, FSDP2Strategy
from tests.helpers.runs import assert_same_curves, exported, fit
from tests.helpers.tiny import CONFIGS, Tiny, save_llama, texts, write_corpus

DORA = {"lora": LoRAConfig(dora=True)}
FOUR_BITS = {"quantize": QuantizeConfig(), "lora": LoRAConfig()}


def in_half() -> FSDP2Strategy:
    strategy = FSDP2Strategy()
    strategy.precision_plugin = MixedPrecision("bf16-mixed", "cpu")
    return strategy


@pytest.mark.parametrize(
    ("strategy", "lm", "message"),
    [
        (FSDP2Strategy(), FOUR_BITS, "quantize: expected null under FSDP2Strategy, .* to ddp"),
        (FSDP2Strategy(tensor_parallel_size=2), DORA, "dora: expected false with tensor_parallel"),
        (DeepSpeedStrategy(stage=2), FOUR_BITS, "quantize: expected null under DeepSpeedStrategy"),
        (DeepSpeedStrategy(stage=3), DORA, "dora: expected false under DeepSpeed"),
        (in_half(), DORA, "dora: expected false with bf16-mixed under FSDP2"),
    ],
)
def test_adapters_that_a_strategy_cannot_train_are_refused(
    strategy: Any, lm: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        strategy.check_lm(LMConfig(**lm))


def test_others_are_accepted() -> None:
    FSDP2Strategy().check_lm(LMConfig(**DORA))
    for strategy in (FSDP2Strategy(tensor_parallel_size=2), DeepSpeedStrategy(stage=3)):
        strategy.check_lm(LMConfig(lora=LoRAConfig(init="pissa", rslora=True)))


def test_two_ranks_train_around_four_bits_as_one_process_does(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(60))
    base = save_llama(tiny.folder / "base", hidden_size=64, intermediate_size=128)
    settings = ["--config", str(CONFIGS / "model/qlora.yaml"), "--model.lm.architecture=null"]
    settings += [f"--model.lm.pretrained={base}", f"--model.lm.tokenizer={tiny.tokenizer}"]
    settings += ["--model.lm.dtype=float32", "--model.lm.lora.rank=2"]
    settings += ["--model.regularizers+=tests.helpers.plugins.ExcessLoss"]
    one = fit(tiny, "one", *settings, "--data.batch_size=8")
    ddp = ["--config", str(CONFIGS / "strategy/ddp.yaml")]
    two = fit(tiny, "two", *settings, *ddp, world_size=2)
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)
