import copy
import shutil
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.hub_models import HUB_MODELS, PARAMETERS
from lit_entrodrop.model.building import (
    build_causal_lm,
    build_hf_config,
    prepare_causal_lm,
    transformer_blocks,
)
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from regularizers.functional import document_positions
from tests.helpers.tiny import LLAMA, VOCABULARY_SIZE


def config(**settings: Any) -> LMConfig:
    return LMConfig(**{"pretrained": None, "architecture": LLAMA, **settings})


def build(**settings: Any) -> CausalLM:
    torch.manual_seed(0)
    return build_causal_lm(config(**settings))


def loss(model: nn.Module, seed: int = 0) -> Tensor:
    ids = torch.randint(2, 300, (2, 9), generator=torch.Generator().manual_seed(seed))
    places = torch.arange(9).expand(2, 9)
    total: Tensor = model(ids, ids, places, torch.zeros_like(ids)).nll.sum()
    return total


def gradients(model: CausalLM) -> dict[str, Tensor | None]:
    model.zero_grad()
    loss(model).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_random_weights_follow_the_seed() -> None:
    first, second = build(), build()
    torch.testing.assert_close(first.state_dict(), second.state_dict(), atol=0, rtol=0)
    torch.manual_seed(1)
    assert not torch.equal(loss(build_causal_lm(config())), loss(first))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_held_in_the_dtype_that_was_asked_for(dtype: str) -> None:
    model = build(dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_what_was_asked_for(attention: str) -> None:
    assert build(attention=attention).unwrapped.config._attn_implementation == attention


def test_overrides_reach_the_model() -> None:
    model = build(config_overrides={"attention_dropout": 0.25, "hidden_size": 8, "head_dim": 4})
    assert model.unwrapped.config.attention_dropout == 0.25
    assert model.hf_model.get_input_embeddings().weight.shape == (320, 8)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"config_overrides": {"atention_dropout": 0.1}},
            "config_overrides: llama has no atention",
        ),
        ({"architecture": {**LLAMA, "hiden_size": 8}}, "lm.architecture: llama has no hiden_size"),
        (
            {"architecture": {"hidden_size": 8}},
            r"expected an entry model_type .*got \['hidden_size'\]",
        ),
        ({"architecture": {"model_type": "lama"}}, "lama"),
        (
            {"architecture": {"model_type": "granitemoehybrid", "hidden_size": 16}},
            r"lm\.architecture: expected sizes that fit .* must divide .*: correct them$",
        ),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_hf_config(config(**settings))


@pytest.mark.parametrize("architecture", [None, LLAMA])
def test_exactly_one_of_pretrained_and_architecture(architecture: dict[str, Any] | None) -> None:
    pretrained = None if architecture is None else "some/model"
    with pytest.raises(ValueError, match="expected either pretrained or architecture, got"):
        LMConfig(pretrained=pretrained, architecture=architecture)


def test_tokenizer_source() -> None:
    assert LMConfig("some/model").tokenizer_source == "some/model"
    assert LMConfig("some/model", tokenizer="other").tokenizer_source == "other"
    with pytest.raises(ValueError, match=r"expected a tokenizer for lm\.architecture"):
        _ = config().tokenizer_source


@pytest.mark.parametrize("target_modules", ["all-linear", ["q_proj"], ["q_proj", "lm_head"]])
def test_lora_trains_adapters_alone(target_modules: str | list[str]) -> None:
    untied = {**LLAMA, "tie_word_embeddings": False}
    base = build(architecture=untied)
    model = prepare_causal_lm(
        copy.deepcopy(base.unwrapped),
        config(architecture=untied, lora=LoRAConfig(rank=2, target_modules=target_modules)),
    )
    assert isinstance(model, CausalLM)
    torch.testing.assert_close(loss(model), loss(base))
    assert all(
        parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters()
    )
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.01)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(loss(model))
        losses[-1].backward()
        optimizer.step()
    changed = [name for name in before if not torch.equal(before[name], model.state_dict()[name])]
    assert changed
    assert all("lora_" in name for name in changed)
    assert losses[2] < losses[0]
    assert model.fused_head is not None


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)])
def test_activation_checkpointing_gives_equal_gradients(lora: LoRAConfig | None) -> None:
    plain, saving = build(lora=lora), build(lora=lora, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    assert saving.unwrapped.is_gradient_checkpointing
    runs = {"plain": 0, "saving": 0}

    def count(name: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            runs[name] += 1

        return hook

    for name, model in {"plain": plain, "saving": saving}.items():
        transformer_blocks(model)[0].self_attn.register_forward_pre_hook(count(name))
    torch.testing.assert_close(gradients(saving), gradients(plain))
    assert runs == {"plain": 1, "saving": 2}


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")
def test_compiled_blocks_give_the_same_loss() -> None:
    architecture = {**LLAMA, "num_hidden_layers": 1}
    plain = build(architecture=architecture)
    torch._dynamo.utils.counters.clear()
    compiled = build(architecture=architecture, compile=True)
    assert not torch._dynamo.utils.counters["stats"], "building compiles nothing yet"
    blocks = transformer_blocks(compiled)
    assert all(block._compiled_call_impl is not None for block in blocks)
    assert all(block._compiled_call_impl is None for block in transformer_blocks(plain))
    # Without a backward pass and optimizations, compilation is fastest.
    cheap = {"aot_inductor.debug_compile": True, "cpp.vec_isa_ok": False, "compile_threads": 1}
    with torch.no_grad(), torch._inductor.config.patch(cheap):
        torch.testing.assert_close(loss(compiled), loss(plain))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_compiled_blocks_are_not_compiled_again_in_later_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Inductor's code does not matter here, and needs a compiler.
    eager = partialmethod(nn.Module.compile, backend="eager")
    monkeypatch.setattr(nn.Module, "compile", eager)
    compiled = build(architecture={**LLAMA, "num_hidden_layers": 1}, compile=True)
    statistics = torch._dynamo.utils.counters["stats"]
    statistics.clear()

    def epoch(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for rows in (3, 3, 3, 1):
            ids = torch.randint(VOCABULARY_SIZE, (rows, 16), generator=generator)
            cuts = torch.randint(1, 15, (rows, 1), generator=generator)
            document_ids = (torch.arange(16) >= cuts).long()
            outputs = compiled(ids, ids, document_positions(document_ids), document_ids)
            outputs.nll.sum().backward()

    epoch(0)
    compiled_graphs = statistics["unique_graphs"]
    assert compiled_graphs == 2, "one for full batches, one for the last"
    epoch(1)
    assert statistics["unique_graphs"] == compiled_graphs


def test_transformer_blocks() -> None:
    assert len(transformer_blocks(build())) == 2
    assert len(transformer_blocks(build(lora=LoRAConfig(rank=2)))) == 2
    assert transformer_blocks(nn.Linear(1, 1)) == []


@pytest.mark.parametrize("name", HUB_MODELS)
def test_models_of_the_hub_have_their_published_size(name: str) -> None:
    architecture = HUB_MODELS[name]
    settings = config(architecture=architecture, activation_checkpointing=True, head="torch")
    with torch.device("meta"):
        model = build_causal_lm(settings)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.fused_head is not None
    assert len(transformer_blocks(model)) == architecture["num_hidden_layers"]
