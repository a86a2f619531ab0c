"""Model FLOPs against torch's counter, and against published numbers."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hub_models import HUB_MODELS
from lit_entrodrop.model import flops
from lit_entrodrop.model.building import build_causal_lm, build_hf_config, build_on_meta
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.flops import (
    attention_flops_per_token,
    peak_flops,
    peak_of,
    training_flops_per_token,
)
from regularizers import Requirements
from tests.helpers.architectures import ARCHITECTURES, GATED

T = 64  # tokens
MOE = {**GATED, "num_local_experts": 4, "num_experts_per_tok": 2}
MIXTURES = {
    "mixtral": MOE,
    "granitemoe": MOE,
    "gpt_oss": {**MOE, "head_dim": 8, "sliding_window": T},
    "qwen3_moe": {
        **GATED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 1,
    },
}
KNOWN = {
    name: ARCHITECTURES[name]
    for name in ("llama", "qwen3", "gpt2", "gpt_neox", "opt", "phi", "gemma2", "granite", "cohere")
}


def config(model_type: str, settings: dict[str, Any], **others: Any) -> LMConfig:
    return LMConfig(None, {"model_type": model_type, **settings}, **others)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", [*KNOWN, *MIXTURES])
def test_they_are_those_that_torch_counts(model_type: str, tied: bool) -> None:
    lm = config(
        model_type,
        {**KNOWN, **MIXTURES}[model_type],
        attention="eager",
        config_overrides={"tie_word_embeddings": tied},
    )
    causal_lm = build_causal_lm(lm)
    if model_type in MIXTURES:
        # The counter does not know the grouped kernels.
        causal_lm.unwrapped.set_experts_implementation("eager")
    ids = torch.arange(T)[None]
    with FlopCounterMode(display=False) as counter:
        causal_lm.unwrapped(ids, labels=ids, use_cache=False).loss.backward()
    # Eager attention also computes the half that the mask hides.
    hidden = 3 * attention_flops_per_token(causal_lm.unwrapped.config, T)
    expected = training_flops_per_token(causal_lm, T) + hidden
    # Transformers before 5.23 computes the rotary angles by a matrix product.
    assert counter.get_total_flops() / T == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(
    ("model", "length", "gigaflops"),
    [
        ("qwen3_0.6b", 2048, 4.28),
        ("qwen3_0.6b", 8192, 6.39),
        ("qwen3_1.7b", 2048, 11.0),
        ("qwen3_1.7b", 8192, 13.1),
        ("llama3.1_8b", 2048, 46.6),
        ("llama3.1_8b", 8192, 51.5),
    ],
)
def test_flops_of_known_models(model: str, length: int, gigaflops: float) -> None:
    causal_lm = build_on_meta(LMConfig(None, HUB_MODELS[model]))
    assert training_flops_per_token(causal_lm, length) / 1e9 == pytest.approx(gigaflops, rel=5e-3)


def test_extra_passes_count_as_the_method_needs_them() -> None:
    causal_lm = build_on_meta(config("llama", GATED))
    once = training_flops_per_token(causal_lm, T)

    def times(**required: Any) -> float:
        return training_flops_per_token(causal_lm, T, Requirements(**required)) / once

    assert times(second_forward=True) == 2
    for frozen in ({"entropy": "online"}, {"reference": True}, {"teacher": 0.99}):
        assert times(**frozen) == pytest.approx(4 / 3)
    assert times(entropy="last_epoch") == 1


def test_adapters_need_no_gradient_of_frozen_weights() -> None:
    whole = build_on_meta(config("llama", GATED))
    adapted = build_on_meta(config("llama", GATED, lora=LoRAConfig(rank=2)))
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    added = sum(weight.numel() for weight in trained)
    attention = 3 * attention_flops_per_token(adapted.unwrapped.config, T)
    weights = (training_flops_per_token(whole, T) - attention) / 6
    assert training_flops_per_token(adapted, T) == 4 * weights + 6 * added + attention


def test_a_window_limits_attention() -> None:
    settings = {**GATED, "head_dim": 8, "sliding_window": 16, "num_hidden_layers": 1}
    built = build_on_meta(config("mistral", settings)).unwrapped.config
    # Tokens see 1, 2, ..., 16, 16, ... keys; the definition takes half a key less for each.
    keys = sum(min(token + 1, 16) for token in range(T)) / T
    per_key = 2 * 2 * 2 * 8
    assert attention_flops_per_token(built, T) == pytest.approx(keys * per_key, rel=0.04)
    assert attention_flops_per_token(built, 16) == 8 * per_key


def test_recurrent_layers_have_no_attention() -> None:
    for model_type in ("mamba", "xlstm"):
        built = build_hf_config(config(model_type, ARCHITECTURES[model_type]))
        assert attention_flops_per_token(built, T) == 0


def test_hybrid_layers_have_attention_too() -> None:
    built = build_hf_config(config("falcon_h1", {**GATED, "num_hidden_layers": 3}))
    llama = build_hf_config(config("llama", {**GATED, "num_hidden_layers": 3}))
    assert built.layer_types == ["hybrid"] * 3
    expected = attention_flops_per_token(llama, T)
    assert attention_flops_per_token(built, T) == pytest.approx(expected)


def test_weights_in_half_precision_have_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(flops, "get_available_flops", lambda _, dtype: 19.5e12)
    device = torch.device("cuda")
    assert peak_flops(device, "bf16-mixed") == peak_flops(device, "32-true", "bfloat16") == 312e12
    assert peak_flops(device, "32-true") == 19.5e12


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        # The peak in the table of Lightning includes sparsity, or is half of the true one.
        ("NVIDIA H100 NVL", None),
        ("NVIDIA RTX A6000", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_a_wrong_peak_is_worse_than_none(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak
