"""Training around a 4-bit base model, as `configs/model/qlora.yaml` does."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_entrodrop.commands.export import export
from lit_entrodrop.model.config import LoRAConfig, QuantizeConfig
from lit_entrodrop.training.module import LitCausalLM
from tests.helpers.plugins import ExcessLoss
from tests.helpers.tiny import Tiny, save_llama

IDS = torch.arange(2, 40).view(2, 19)


class SaveHalfway(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


def quantized(tiny: Tiny, base: Path, **settings: Any) -> LitCausalLM:
    lm = {"pretrained": str(base), "dtype": "bfloat16", "quantize": QuantizeConfig()}
    return tiny.module(ExcessLoss(), lm={**lm, "lora": LoRAConfig(rank=2, dropout=0.1), **settings})


def weights(module: LitCausalLM) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in module.causal_lm.state_dict().items()}


def test_a_resumed_run_ends_with_the_same_adapters_and_is_merged(tiny: Tiny) -> None:
    base = save_llama(tiny.folder / "base", hidden_size=64, intermediate_size=128)
    path, settings = tiny.folder / "half.ckpt", {"max_steps": 4, "precision": "bf16-mixed"}
    whole = quantized(tiny, base)
    trainer = tiny.trainer(**settings, callbacks=[SaveHalfway(path)])
    trainer.fit(whole, datamodule=tiny.data())
    assert all("lora_" in name for name in torch.load(path)["state_dict"] if "hf_model" in name)

    # Other initial adapters, which the checkpoint replaces.
    again = quantized(tiny, base)
    for parameter in again.parameters():
        parameter.data.zero_()
    resumed = tiny.trainer(**settings)
    resumed.fit(again, datamodule=tiny.data(), ckpt_path=str(path))
    torch.testing.assert_close(weights(again), weights(whole), atol=0, rtol=0)

    last = tiny.folder / "last.ckpt"
    trainer.save_checkpoint(last)
    exported = export(str(last), str(tiny.folder / "out"), dtype="float32")
    merged = AutoModelForCausalLM.from_pretrained(exported).eval()
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad():
        logits, expected = (m(IDS).logits for m in (merged, whole.causal_lm.unwrapped.eval()))
    torch.testing.assert_close(logits, expected.float(), atol=0.1, rtol=0)


def test_four_bits_without_adapters_are_refused(tiny: Tiny) -> None:
    base = save_llama(tiny.folder / "base", hidden_size=64, intermediate_size=128)
    with pytest.raises(
        ValueError, match=r"expected adapters with lm\.quantize, .* add configs/model"
    ):
        tiny.trainer(max_steps=1).fit(quantized(tiny, base, lora=None), datamodule=tiny.data())
