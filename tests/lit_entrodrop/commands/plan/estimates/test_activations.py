from dataclasses import replace
from itertools import product
from time import process_time
from typing import Any

import pytest

from benchmarks.hub_models import HUB_MODELS, PARAMETERS
from lit_entrodrop.commands.plan.estimates.activations import dry_run, measure_step, packed_batch
from lit_entrodrop.commands.plan.estimates.extra_passes import ExtraPasses
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.dropout import DropoutConfig
from regularizers import Requirements
from tests.helpers.architectures import ARCHITECTURES

OTHERS = ("gpt2", "qwen3", "gemma3_text")


def config(model_type: str, **settings: Any) -> LMConfig:
    architecture = {"model_type": model_type, **ARCHITECTURES[model_type]}
    return LMConfig(pretrained=None, architecture=architecture, **settings)


@pytest.mark.parametrize(
    ("model_type", "activation_checkpointing", "precision"),
    [
        *product(["llama"], [False, True], ["32-true", "bf16-mixed"]),
        # The other kinds of layers test each setting once.
        *((name, False, "bf16-mixed") for name in OTHERS),
        *((name, True, "32-true") for name in OTHERS),
    ],
)
def test_it_is_what_a_real_step_takes(
    model_type: str, activation_checkpointing: bool, precision: str
) -> None:
    lm = config(model_type, activation_checkpointing=activation_checkpointing)
    computed = dry_run(lm, 3, 64, precision, on_gpu=False)
    real = measure_step(build_causal_lm(lm), packed_batch(3, 64), precision)
    assert computed.activation_bytes == real.peak
    assert computed.head_bytes == real.peak_of_head
    assert computed.step_bytes == real.peak_with_gradients
    assert computed.flops_per_token == real.flops / (3 * 64)


@pytest.mark.parametrize(
    ("required", "passes"),
    [
        (Requirements(entropy="online"), 4 / 3),
        (Requirements(reference=True), 4 / 3),
        (Requirements(teacher=0.9), 4 / 3),
        (Requirements(second_forward=True), 2),
        (Requirements(second_forward=True, divergence=True), 2),
        (Requirements(second_forward=True, teacher=0.9), 7 / 3),
        (Requirements(reference=True, logits=True), 4 / 3),
    ],
)
def test_further_passes_are_counted(required: Requirements, passes: float) -> None:
    lm, extra_passes = config("llama"), ExtraPasses(required, reads_outputs=True)
    plain = dry_run(
        lm, 3, 64, "32-true", on_gpu=False, extra_passes=ExtraPasses(reads_outputs=True)
    )
    computed = dry_run(lm, 3, 64, "32-true", on_gpu=False, extra_passes=extra_passes)
    real = measure_step(build_causal_lm(lm), packed_batch(3, 64), "32-true", extra_passes)
    assert (computed.activation_bytes, computed.head_bytes) == (real.peak, real.peak_of_head)
    assert computed.flops_per_token == real.flops / (3 * 64)
    trunk_and_head = plain.flops_per_token * passes
    assert computed.flops_per_token == pytest.approx(trunk_and_head, rel=0.05 + required.divergence)
    # Only what has a gradient is held until the backward pass.
    grows = computed.activation_bytes > 1.5 * plain.activation_bytes
    assert grows == required.second_forward


def test_attention_of_a_gpu_drops_without_holding_its_weights() -> None:
    plain, dropping = config("llama"), config("llama", dropout=DropoutConfig(attention=0.1))
    one = LMConfig(None, dropping.architecture, dropout=DropoutConfig())
    assert dry_run(dropping, 2, 64, "32-true") == dry_run(one, 2, 64, "32-true")
    on_cpu = [dry_run(each, 2, 64, "32-true", on_gpu=False) for each in (dropping, plain)]
    assert on_cpu[0].activation_bytes > on_cpu[1].activation_bytes


def test_a_copied_embedding_that_is_tied_to_the_head() -> None:
    lora = LoRAConfig(rank=2, modules_to_save=["embed_tokens"])
    lm = config("llama", lora=lora, config_overrides={"tie_word_embeddings": True})
    computed = dry_run(lm, 2, 32, "32-true", on_gpu=False)
    real = measure_step(build_causal_lm(lm), packed_batch(2, 32), "32-true")
    assert computed.step_bytes == real.peak_with_gradients


@pytest.mark.parametrize("head", ["torch", "naive"])
@pytest.mark.parametrize("tied", [False, True])
def test_heads_and_tied_weights(head: Any, tied: bool) -> None:
    lm = config("llama", head=head, config_overrides={"tie_word_embeddings": tied})
    computed = dry_run(lm, 2, 32, "bf16-mixed", on_gpu=False)
    real = measure_step(build_causal_lm(lm), packed_batch(2, 32), "bf16-mixed")
    assert (computed.activation_bytes, computed.head_bytes) == (real.peak, real.peak_of_head)


def test_the_naive_head_takes_the_logits_of_all_tokens() -> None:
    lm = config("llama", config_overrides={"vocab_size": 4096})
    fused = dry_run(replace(lm, head_chunk_size=16), 4, 64, "32-true")
    naive = dry_run(replace(lm, head="naive"), 4, 64, "32-true")
    assert fused.head_bytes < 4 * 64 * 4096 * 4 <= naive.head_bytes


def test_checkpointing_lowers_memory_and_computes_blocks_again() -> None:
    lm = config("llama", config_overrides={"num_hidden_layers": 8})
    whole = dry_run(lm, 4, 64, "bf16-mixed")
    saving = dry_run(replace(lm, activation_checkpointing=True), 4, 64, "bf16-mixed")
    assert saving.activation_bytes < whole.activation_bytes / 2
    assert whole.flops_per_token < saving.flops_per_token < 4 / 3 * whole.flops_per_token


def test_both_gradients_of_a_tied_weight_are_added_in_place() -> None:
    words = {"vocab_size": 65536, "tie_word_embeddings": True}
    lm = config("llama", config_overrides=words, head_chunk_size=1, activation_checkpointing=True)
    weight = 65536 * 16 * 4
    assert dry_run(lm, 1, 8, "32-true").activation_bytes == pytest.approx(2 * weight, rel=0.1)


def test_flops_are_six_per_weight_and_those_of_attention() -> None:
    architecture, parameters = HUB_MODELS["llama3.1_8b"], PARAMETERS["llama3.1_8b"]
    lm = LMConfig(pretrained=None, architecture=architecture)
    start = process_time()
    computed = dry_run(lm, 1, 4096, "bf16-mixed")
    assert process_time() - start < 20
    # Looking up an embedding is no arithmetic. Scores are computed once more in the backward pass.
    weights = parameters - 128256 * 4096
    attention = 14 * 32 * 4096 * 4096
    assert computed.flops_per_token == pytest.approx(6 * weights + attention, rel=0.03)


def test_a_gpu_gives_the_head_larger_chunks() -> None:
    lm = config("llama", config_overrides={"vocab_size": 65536})
    on_cpu, on_gpu = (dry_run(lm, 4, 256, "32-true", on_gpu=on_gpu) for on_gpu in (False, True))
    more = on_gpu.head_bytes - on_cpu.head_bytes
    # 1024 tokens instead of 256, and 512 rows at work instead of 8.
    assert more == pytest.approx((768 + 504) * 65536 * 4, rel=0.02)


def test_gradients_of_the_step_before_live_in_the_forward_pass() -> None:
    lm = config("llama")
    gradients = sum(4 * weight.numel() for weight in build_causal_lm(lm).parameters())
    computed = dry_run(lm, 8, 64, "32-true")
    assert computed.step_bytes == pytest.approx(computed.activation_bytes + gradients, rel=0.01)


def test_nothing_is_left_behind() -> None:
    model = build_causal_lm(config("llama"))
    first, second = (measure_step(model, packed_batch(2, 32), "32-true") for _ in range(2))
    assert first.peak == second.peak
    assert first.alive["trunk"] == first.alive["head"] == first.alive["gradients"] == 0
    assert second.alive["gradients"] == sum(4 * weight.numel() for weight in model.parameters())
