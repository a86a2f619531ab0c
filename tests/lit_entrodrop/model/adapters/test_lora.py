import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lit_entrodrop.model.adapters.lora import without_adapters
from lit_entrodrop.model.building import build_causal_lm, build_on_meta
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from regularizers import Requirements

IDS = torch.arange(2, 21)[None]


def adapted(base: Path, **settings: Any) -> CausalLM:
    """Build a model with adapters that are no longer at their start."""
    causal_lm = build_causal_lm(LMConfig(str(base), lora=LoRAConfig(rank=4, **settings))).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in causal_lm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return causal_lm


def query_layer(causal_lm: CausalLM) -> Any:
    return cast(Any, causal_lm.unwrapped).model.layers[0].self_attn.q_proj


def matrices(layer: Any) -> list[Tensor]:
    """Return base weight, A and B of an adapted layer in float64."""
    named = layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]
    return [module.weight.detach().double() for module in named]


@torch.no_grad()
def test_rank_stabilized_scale(base: Path) -> None:
    layer = query_layer(adapted(base, alpha=6, rslora=True))
    weight, down, up = matrices(layer)
    hidden = torch.randn(3, 64, dtype=torch.float64)
    expected = hidden @ (weight + 6 / math.sqrt(4) * up @ down).T
    torch.testing.assert_close(layer.double()(hidden), expected, atol=1e-12, rtol=1e-12)


@torch.no_grad()
def test_dora_is_a_direction_times_a_magnitude(base: Path) -> None:
    """Equation 5 of Liu et al. 2024 (arXiv 2402.09353), in float64."""
    layer = query_layer(adapted(base, alpha=8, dora=True))
    weight, down, up = matrices(layer)
    direction = weight + 8 / 4 * up @ down
    magnitude = layer.lora_magnitude_vector["default"].weight.double()
    rows = [
        m * row / row.square().sum().sqrt() for m, row in zip(magnitude, direction, strict=True)
    ]
    hidden = torch.randn(3, 64, dtype=torch.float64)
    expected = hidden @ torch.stack(rows).T
    torch.testing.assert_close(layer.double()(hidden), expected, atol=1e-12, rtol=1e-12)


START = ["default", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16"]


@pytest.mark.parametrize("init", START)
@pytest.mark.parametrize("dora", [False, True])
def test_initial_adapters_leave_the_function_unchanged(base: Path, init: Any, dora: bool) -> None:
    plain = build_causal_lm(LMConfig(str(base))).eval().unwrapped
    lora = LoRAConfig(rank=4, init=init, dora=dora, modules_to_save=["embed_tokens"])
    started = build_causal_lm(LMConfig(str(base), lora=lora)).eval()
    with torch.no_grad():
        expected, logits = plain(IDS).logits, started.unwrapped(IDS).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)
    # Sharded training fills a model that was built without weights.
    empty = build_on_meta(LMConfig(str(base), lora=lora))
    assert all(parameter.is_meta for parameter in empty.parameters())
    for name, parameter in started.named_parameters():
        like = empty.get_parameter(name)
        assert (like.shape, like.requires_grad) == (parameter.shape, parameter.requires_grad)


def test_pissa_takes_the_largest_singular_vectors(base: Path) -> None:
    lora = LoRAConfig(rank=3, init="pissa")
    layer = query_layer(build_causal_lm(LMConfig(str(base), lora=lora)))
    whole = query_layer(build_causal_lm(LMConfig(str(base)))).weight.detach().double()
    _, down, up = matrices(layer)
    left, values, right = torch.linalg.svd(whole)
    expected = left[:, :3] @ values[:3].diag() @ right[:3]
    torch.testing.assert_close(layer.scaling["default"] * up @ down, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_modules_are_trained_in_full_and_stay_tied(base: Path, name: str) -> None:
    lora = LoRAConfig(rank=2, modules_to_save=[name])
    causal_lm = build_causal_lm(LMConfig(str(base), lora=lora))
    assert lora.modules_to_save == [name]
    assert causal_lm.fused_head is not None
    ids = torch.arange(20)[None]
    causal_lm(ids, ids, ids, torch.zeros_like(ids)).nll.sum().backward()
    trained = [each for each in causal_lm.parameters() if each.grad is not None]
    assert sum(len(each) == 320 for each in trained) == 1
    for each in trained:
        each.data -= 0.1 * each.grad
    causal_lm.eval()
    with torch.no_grad():
        nll = causal_lm(ids, ids, ids, torch.zeros_like(ids)).nll[0, 1:]
        logits = causal_lm.unwrapped(ids).logits[0, :-1]
    expected = nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    torch.testing.assert_close(nll, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"dora": True},
        {"init": "orthogonal", "target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
    ],
)
@torch.no_grad()
def test_without_adapters_it_is_the_base_model(base: Path, settings: dict[str, Any]) -> None:
    batch = dict.fromkeys(("input_ids", "labels", "position_ids"), IDS)
    batch["document_ids"] = torch.zeros_like(IDS)
    required = Requirements(divergence=True)
    plain = score_clean(build_causal_lm(LMConfig(str(base))), batch, required)
    causal_lm = adapted(base, **settings)
    trained = [each.requires_grad for each in causal_lm.parameters()]
    changed = score_clean(causal_lm, batch, required)
    with without_adapters(causal_lm):
        initial = score_clean(causal_lm, batch, required)
    assert torch.equal(initial.nll, plain.nll)
    assert (changed.nll - plain.nll).abs().max() > 0.01
    # Its head runs when the adapters are enabled again.
    assert initial.kl_divergence(plain).max() < 1e-6
    divergences = initial.kl_divergence(changed), plain.kl_divergence(changed)
    torch.testing.assert_close(*divergences, rtol=1e-4, atol=1e-6)
    assert [each.requires_grad for each in causal_lm.parameters()] == trained
    assert torch.equal(score_clean(causal_lm, batch).nll, changed.nll)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules_to_save": ["embedings"]}, "expected names of modules of llama, got 'embedings'"),
        (
            {"target_modules": ["v_proj", "q_prj"]},
            r"target_modules: .*'q_prj': did you mean q_proj",
        ),
        ({"init": "orthogonal", "rank": 3}, "rank: expected an even rank for init orthogonal"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    base: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_causal_lm(LMConfig(str(base), lora=LoRAConfig(**settings)))


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": []}, {"target_modules": "nothing"}, {"modules_to_save": ["layers"]}],
)
def test_layers_that_cannot_be_adapted_are_refused_by_name(
    base: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"lm\.lora: .* llama.*: correct target_modules"):
        build_on_meta(LMConfig(str(base), lora=LoRAConfig(**settings)))
