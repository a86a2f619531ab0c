"""Computed memory against that of real models, optimizers and shards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import schedulefree
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from benchmarks.hub_models import HUB_MODELS
from lit_entrodrop.commands.plan.estimates.model_memory import (
    STRATEGIES,
    NumberBytes,
    model_memory,
    optimizer_bytes,
    weight_bytes,
)
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.building import (
    build_causal_lm,
    build_on_meta,
    prepare_causal_lm,
    transformer_blocks,
)
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig, QuantizeConfig
from lit_entrodrop.model.sizes import Sizes, sizes_of
from lit_entrodrop.training.optim import AdamW, Muon
from tests.helpers.processes import run_ranks
from tests.helpers.tiny import LLAMA, save_llama

LLAMA_8B = HUB_MODELS["llama3.1_8b"]
FP32 = NumberBytes(stored=4, computed=4, optimizer=8)
UNTIED = {**LLAMA, "tie_word_embeddings": False}


def sizes_for(**settings: Any) -> Sizes:
    return sizes_of(build_on_meta(LMConfig(pretrained=None, **settings)))


def local_bytes(tensors: list[Tensor]) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)


def train_one_step(causal_lm: CausalLM) -> tuple[int, int, int]:
    """Return the bytes of parameters, gradients and optimizer states."""
    parameters = list(causal_lm.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = AdamW(trained)
    ids = torch.arange(8)[None]
    outputs = causal_lm(ids, ids, ids, torch.zeros_like(ids), token_weight=torch.ones(1, 8))
    outputs.weighted_loss.backward()
    optimizer.step()
    moments = [
        state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")
    ]
    gradients = [p.grad for p in parameters if p.grad is not None]
    return local_bytes(parameters), local_bytes(gradients), local_bytes(moments)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": LLAMA},
        {"architecture": UNTIED},
        {"architecture": UNTIED, "lora": LoRAConfig(rank=2)},
        {"architecture": LLAMA, "dtype": "bfloat16"},
        {"architecture": UNTIED, "dtype": "bfloat16", "lora": LoRAConfig(rank=2)},
    ],
    ids=["tied", "untied", "adapters", "half", "adapters of half"],
)
def test_one_device_holds_what_a_real_model_and_its_optimizer_take(
    settings: dict[str, Any],
) -> None:
    lm = LMConfig(pretrained=None, **settings)
    causal_lm = build_causal_lm(lm)
    trained = getattr(torch, lm.dtype if lm.lora is None else "float32")
    workload = Workload(lm, 1, 1, 16, "bf16-mixed", optimizer_bytes(AdamW, trained))
    computed = model_memory("ddp", sizes_of(causal_lm), 1, workload.number_bytes)
    assert (computed.parameters, computed.gradients, computed.optimizer) == train_one_step(
        causal_lm
    )
    assert computed.buffers == computed.host == 0
    assert sizes_of(causal_lm) == sizes_of(build_on_meta(lm))


@pytest.mark.parametrize("double_quant", [False, True])
def test_a_quantized_model_takes_what_is_counted(tmp_path: Path, double_quant: bool) -> None:
    base = save_llama(tmp_path, hidden_size=256, intermediate_size=512)
    quantize, lora = QuantizeConfig(double_quant=double_quant), LoRAConfig(rank=2)
    lm = LMConfig(str(base), quantize=quantize, lora=lora)
    taken, largest = 0, 256 * 512
    for parameter in build_causal_lm(lm).parameters():
        taken += parameter.nbytes
        if state := getattr(parameter, "quant_state", None):
            taken += state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    workload = Workload(lm, 1, 1, 16, "bf16-mixed", 8.0)
    sizes = sizes_of(build_on_meta(lm))
    assert weight_bytes(sizes, workload.number_bytes) == taken < 0.6 * 4 * sizes.parameters
    # To compute, a layer is dequantized.
    assert model_memory("ddp", sizes, 1, workload.number_bytes).buffers == 2 * largest


def shard_and_step(rank: int, folder: Path) -> None:
    lm = LMConfig(pretrained=None, architecture=UNTIED)
    causal_lm = prepare_causal_lm(build_causal_lm(lm).hf_model, lm)
    mesh = init_device_mesh("cpu", (2,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in transformer_blocks(causal_lm.hf_model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(causal_lm, mesh=mesh, mp_policy=policy)
    torch.save(train_one_step(causal_lm), folder / f"{rank}.pt")


def test_two_ranks_of_fsdp2_hold_half_each(tmp_path: Path) -> None:
    run_ranks(shard_and_step, tmp_path, tmp_path)
    computed = model_memory("fsdp2", sizes_for(architecture=UNTIED), 2, NumberBytes())
    for rank in (0, 1):
        held = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert held == (computed.parameters, computed.gradients, computed.optimizer)


def test_llama_8b_takes_sixteen_bytes_for_each_of_its_parameters() -> None:
    sizes = sizes_for(architecture=LLAMA_8B)
    assert sizes.parameters == pytest.approx(8.03e9, rel=1e-4)
    assert model_memory("ddp", sizes, 1, NumberBytes()).device == 16 * sizes.parameters
    # Gradients are sent in buckets beside them.
    assert model_memory("ddp", sizes, 2, NumberBytes()).device == 20 * sizes.parameters
    # bf16 weights, fp32 gradients, master copy and two moments.
    offloaded = model_memory("deepspeed_zero3_offload", sizes, 1, NumberBytes())
    assert offloaded.host == 18 * sizes.parameters
    assert offloaded.host < 160e9


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "ddp"])
def test_more_devices_hold_less_each_and_the_same_together(strategy: str) -> None:
    sizes = sizes_for(architecture=LLAMA_8B)
    few, many = (
        model_memory(strategy, sizes, 8, NumberBytes()),
        model_memory(strategy, sizes, 64, NumberBytes()),
    )
    assert many.device + many.host < few.device + few.host
    for name in ("optimizer", "gradients"):
        assert getattr(many, name) * 64 == pytest.approx(getattr(few, name) * 8, rel=1e-6)
    assert many.buffers == few.buffers


def test_a_shared_block_is_gathered_in_part() -> None:
    sizes = sizes_for(architecture=LLAMA_8B)
    whole, shared = (
        model_memory("fsdp2", sizes, 8, NumberBytes()),
        model_memory("fsdp2_tp", sizes, 8, NumberBytes(), 2),
    )
    assert whole.parameters == shared.parameters
    # Two blocks in bf16; the gradient of what stands around the blocks is larger than theirs.
    assert whole.buffers - shared.buffers == sizes.block * 2


def test_adapters_alone_have_gradients() -> None:
    sizes = sizes_for(architecture=UNTIED, lora=LoRAConfig(rank=2))
    assert model_memory("fsdp2", sizes, 2, FP32).gradients == sizes.trainable * 2
    frozen = replace(sizes, trainable=0, block_trainable=0, around_trainable=0)
    assert model_memory("fsdp2", frozen, 2, FP32).gradients == 0


@pytest.mark.parametrize(
    ("make", "dtype", "expected"),
    [
        (AdamW, torch.float32, 8),
        (AdamW, torch.bfloat16, 4),
        (torch.optim.SGD, torch.float32, 0),
        (lambda p: torch.optim.SGD(p, momentum=0.9), torch.float32, 4),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), torch.float32, 12),
        (schedulefree.AdamWScheduleFree, torch.float32, 8),
        # Two moments of one byte, and a scale in fp32 per 256 numbers and moment; two code books.
        (bitsandbytes.optim.AdamW8bit, torch.float32, 2 + 2 / 64 + 2 / 1024),
    ],
)
def test_states_of_any_optimizer_are_counted(make: Any, dtype: torch.dtype, expected: int) -> None:
    assert optimizer_bytes(make, dtype) == expected


def test_muon_has_one_momentum_for_matrices_of_blocks_only() -> None:
    assert optimizer_bytes(Muon, torch.float32) == 4
    assert optimizer_bytes(Muon, torch.float32, hidden=0.75) == 0.75 * 4 + 0.25 * 8


def test_impossible_setups_are_rejected() -> None:
    sizes = sizes_for(architecture=LLAMA)
    with pytest.raises(ValueError, match=r"expected one of ddp, .*, got 'zero9'"):
        model_memory("zero9", sizes, 2, NumberBytes())
    with pytest.raises(ValueError, match="multiple of tensor_parallel_size, 2, got 3"):
        model_memory("fsdp2_tp", sizes, 3, NumberBytes(), 2)
    with pytest.raises(ValueError, match="world_size: expected a whole number of at least 1"):
        model_memory("ddp", sizes, 0, NumberBytes())


def test_a_weight_that_serves_twice_counts_once() -> None:
    tied, untied = sizes_for(architecture=LLAMA), sizes_for(architecture=UNTIED)
    assert untied.parameters - tied.parameters == tied.vocabulary_size * tied.hidden_size
