import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from scipy.stats import norm
from torch import Tensor

from lit_entrodrop.model.adapters.quantization import loading_arguments
from lit_entrodrop.model.building import build_causal_lm, load_dequantized, prepare_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig, QuantizeConfig, frozen_config
from lit_entrodrop.model.loading import load_config
from tests.helpers.tiny import save_llama

IDS = torch.arange(2, 21)[None]


def normal_float() -> Tensor:
    """Return the 16 numbers of NF4: quantiles of the normal distribution, with an exact 0.

    Appendix E of Dettmers et al. 2023 (arXiv 2305.14314).
    """
    last = (1 - 1 / 32 + 1 - 1 / 30) / 2
    positive, negative = np.linspace(0.5, last, 9)[1:], np.linspace(0.5, last, 8)[1:]
    values = np.concatenate([-norm.ppf(negative), [0.0], norm.ppf(positive)])
    return torch.from_numpy(np.sort(values / values.max()))


def rounded(weight: Tensor) -> Tensor:
    """Return a weight rounded to NF4 in blocks of 64, in float64."""
    blocks = weight.double().reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    table = normal_float()
    nearest = (blocks[..., None] / scale[..., None] - table).abs().argmin(-1)
    return (table[nearest] * scale).view_as(weight)


def layers(model: Any) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters() if "_proj" in name}


@pytest.mark.parametrize("double_quant", [False, True])
def test_weights_are_rounded_to_normal_float(base: Path, double_quant: bool) -> None:
    lm = LMConfig(str(base), quantize=QuantizeConfig(double_quant=double_quant))
    original = layers(build_causal_lm(LMConfig(str(base))).unwrapped)
    dequantized = layers(load_dequantized(lm))
    assert dequantized.keys() == original.keys()
    for name, weight in dequantized.items():
        expected = rounded(original[name])
        # The scales are rounded to 8 bits.
        tolerance = 0.02 if double_quant else 1e-6
        worst = (weight - expected).abs().max() / expected.abs().max()
        assert worst < tolerance, name
        error = (weight - original[name]).norm() / original[name].norm()
        assert 0.05 < error < 0.15, name


def quantized(base: Path, **settings: Any) -> tuple[LMConfig, CausalLM]:
    """Build a quantized model with adapters that are no longer at their start."""
    lora = LoRAConfig(rank=2, **settings)
    lm = LMConfig(str(base), quantize=QuantizeConfig(), lora=lora)
    causal_lm = build_causal_lm(lm)
    for index, parameter in enumerate(
        each for each in causal_lm.parameters() if each.requires_grad
    ):
        generator = torch.Generator().manual_seed(index)
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return lm, causal_lm


def gradients(causal_lm: CausalLM) -> tuple[Tensor, dict[str, Tensor]]:
    outputs = causal_lm(IDS, IDS, IDS, torch.zeros_like(IDS))
    outputs.nll.sum().backward()
    named = causal_lm.named_parameters()
    return outputs.nll.detach(), {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"modules_to_save": ["embed_tokens"]}])
def test_adapters_train_as_around_the_dequantized_weights(
    base: Path, settings: dict[str, Any]
) -> None:
    lm, causal_lm = quantized(base, **settings)
    whole = prepare_causal_lm(load_dequantized(lm), replace(lm, quantize=None))
    whole.load_state_dict(causal_lm.state_dict(), strict=False)
    nll, computed = gradients(causal_lm)
    expected_nll, expected = gradients(whole)
    torch.testing.assert_close(nll, expected_nll, atol=1e-4, rtol=1e-4)
    assert len(computed) > 20
    torch.testing.assert_close(computed, expected, atol=1e-3, rtol=1e-3)


def test_a_state_dict_has_the_trained_weights_alone(base: Path) -> None:
    lm, causal_lm = quantized(base)
    weights = causal_lm.state_dict()
    trained = {name for name, p in causal_lm.named_parameters() if p.requires_grad}
    assert weights.keys() == trained
    other = build_causal_lm(lm)
    other.load_state_dict(weights)
    with torch.no_grad():
        logits = (each.eval().unwrapped(IDS).logits for each in (causal_lm, other))
    torch.testing.assert_close(*logits, atol=0, rtol=0)
    del weights[max(trained)]
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(weights)


def test_an_evaluation_does_not_repack_weights(base: Path) -> None:
    _, causal_lm = quantized(base)
    packed = [each for each in causal_lm.modules() if isinstance(each, Linear4bit)]
    assert len(packed) == 14
    assert not any(module.support_avx512bf16_for_cpu for module in packed)


def test_the_reference_model_is_quantized_too(base: Path) -> None:
    lm, _ = quantized(base)
    assert frozen_config(lm, None) == LMConfig(str(base), quantize=QuantizeConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pretrained": None, "architecture": {}}, "expected a pretrained model in safetensors"),
        ({"pretrained": "a.gguf"}, "expected a pretrained model in safetensors, .* got a.gguf"),
        ({"lora": LoRAConfig(init="pissa")}, "init: expected default or gaussian with lm.quantize"),
    ],
)
def test_what_cannot_be_quantized_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LMConfig(**{"quantize": QuantizeConfig(), **settings})


def test_widths_that_are_dequantized_wrongly_are_refused(tmp_path: Path) -> None:
    lm = LMConfig(str(save_llama(tmp_path)), quantize=QuantizeConfig())
    with pytest.raises(ValueError, match=r"a multiple of 64 inputs, got 16 for model\.layers\.0\."):
        build_causal_lm(lm)


def test_loading_names_what_is_missing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(str(base))
    config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ValueError, match=r"quantized already, .* remove lm\.quantize"):
        loading_arguments(QuantizeConfig(), config, torch.float32)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lit-entrodrop\[qlora\]'"):
        loading_arguments(QuantizeConfig(), config, torch.float32)
