"""Choices on made-up machines for a tiny model, whose dry runs are real."""

from copy import copy
from dataclasses import replace

import pytest

from lit_entrodrop.commands.plan.candidates import MARGIN, Candidate, TrainingSetup, cheapest
from lit_entrodrop.commands.plan.estimates.extra_passes import ExtraPasses
from lit_entrodrop.commands.plan.planner import OFFLOAD, Planner
from lit_entrodrop.commands.plan.recommendation import nothing_fits, recommendation, shown
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token
from lit_entrodrop.model.hardware import GB, Hardware, find_hardware
from regularizers import Requirements
from tests.helpers.tiny import LLAMA

H100 = find_hardware("h100")
LM = LMConfig(pretrained=None, architecture={**LLAMA, "num_key_value_heads": 2})
WORKLOAD = Workload(LM, 4, 16, 32, "bf16-mixed", 8.0)
# Dry runs do not depend on the hardware, and take most of the time.
ON_H100 = Planner(WORKLOAD, H100)


def on(hardware: Hardware, world_size: int) -> list[Candidate]:
    planner = copy(ON_H100)
    planner.hardware = hardware
    return planner.candidates(world_size)


def by_name(found: list[Candidate]) -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in found}


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16])
def test_every_candidate_keeps_the_global_batch(world_size: int) -> None:
    found = ON_H100.candidates(world_size)
    assert len(found) == (2 if world_size == 1 else 6)
    for candidate in found:
        shards = world_size // candidate.tensor_parallel_size
        assert candidate.batch_size * candidate.accumulate * shards == 16
        assert candidate.batch_size <= 4
        assert candidate.devices * candidate.num_nodes == world_size


def test_batches_that_cannot_be_dealt_out_are_left_out() -> None:
    found = ON_H100.candidates(32)
    assert {candidate.tensor_parallel_size for candidate in found} == {2}


def test_heads_that_cannot_be_shared_out_are_left_out() -> None:
    names = by_name(ON_H100.candidates(8))
    assert "fsdp2_tp (2)" in names
    assert "fsdp2_tp (4)" not in names


def test_reference_and_further_passes_take_memory_and_time() -> None:
    plain = by_name(ON_H100.candidates(2))
    required = Requirements(reference=True, second_forward=True)
    workload = replace(
        WORKLOAD, extra_passes=ExtraPasses(required, True), reference=replace(LM, lora=None)
    )
    found = by_name(Planner(workload, H100).candidates(2))
    parameters = ON_H100.sizes.parameters
    copies = {"ddp": 4, "fsdp2": 2, "deepspeed_zero2": 4, "deepspeed_zero3": 2}
    for name, copy_bytes in copies.items():
        more = found[name].memory.parameters - plain[name].memory.parameters
        assert more == parameters * copy_bytes, name
        assert found[name].memory.gradients == plain[name].memory.gradients
        assert found[name].step_seconds > 1.1 * plain[name].step_seconds
    offloaded = found[OFFLOAD].memory
    assert offloaded.host == plain[OFFLOAD].memory.host
    assert offloaded.parameters == parameters * 2


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "required", [Requirements(), Requirements(entropy="online", second_forward=True)]
)
def test_a_logged_mfu_leads_back_to_the_logged_speed(
    required: Requirements, recompute: bool
) -> None:
    lm = replace(LM, activation_checkpointing=recompute)
    workload = replace(WORKLOAD, lm=lm, extra_passes=ExtraPasses(required))
    planner = Planner(workload, H100, mfu=0.3)
    setup = TrainingSetup("ddp", 1, 1, 4, 4, recompute)
    configured = planner._estimate(setup)
    # As `throughput` computes it, from the speed alone.
    flops = training_flops_per_token(build_on_meta(lm), workload.block_size, required)
    logged = configured.tokens_per_second * flops / H100.peak_flops
    assert logged == pytest.approx(0.3)
    assert configured.mfu == pytest.approx(0.3)
    # The same hardware computes other setups at the same HFU.
    other = planner._estimate(replace(setup, activation_checkpointing=not recompute))
    assert (other.mfu < 0.3) != recompute


def test_an_mfu_above_what_recomputation_leaves_is_refused() -> None:
    workload = replace(WORKLOAD, lm=replace(LM, activation_checkpointing=True))
    with pytest.raises(ValueError, match=r"mfu: expected at most 0\.\d+, .* got 0\.95"):
        Planner(workload, H100, mfu=0.95)


def test_averaged_weights_have_no_deepspeed() -> None:
    assert set(by_name(Planner(replace(WORKLOAD, averaged=True), H100).candidates(2))) == {
        "ddp",
        "fsdp2",
        "fsdp2_tp (2)",
    }


def test_fp16_has_no_deepspeed() -> None:
    assert set(by_name(Planner(replace(WORKLOAD, precision="16-mixed"), H100).candidates(2))) == {
        "ddp",
        "fsdp2",
    }


def test_less_memory_takes_smaller_batches_then_recomputing_then_shards() -> None:
    [plenty] = [candidate for candidate in ON_H100.candidates(1) if candidate.strategy == "ddp"]
    assert (plenty.batch_size, plenty.activation_checkpointing) == (4, False)
    seen = [plenty]
    for share in (0.95, 0.6, 0.4, 0.3):
        less = replace(H100, memory_gb=plenty.device_gb / (1 - MARGIN) * share)
        found = by_name(on(less, 1))["ddp"]
        assert not found.fits or found.device_gb <= plenty.device_gb * share
        assert found.device_gb <= seen[-1].device_gb
        seen.append(found)
    assert seen[1].fits
    assert seen[1].batch_size < 4 or seen[1].activation_checkpointing
    assert not seen[-1].fits


def test_the_simplest_of_the_cheapest_is_taken() -> None:
    found = [candidate for size in (1, 2) for candidate in ON_H100.candidates(size)]
    best = cheapest(found)
    assert best is not None
    assert (best.strategy, best.world_size) == ("ddp", 1)
    assert "Recommended: ddp on 1 h100" in recommendation(found)
    assert by_name(found)[OFFLOAD].device_seconds > best.device_seconds
    assert [candidate.world_size for candidate in shown(found)] == [1, 2]
    assert shown(ON_H100.candidates(2)) == ON_H100.candidates(2)


def test_days_and_cost_follow_from_a_step() -> None:
    [ddp, _] = ON_H100.candidates(1)
    found = replace(ddp, step_seconds=36.0, tokens_per_step=1000, world_size=4)
    assert found.tokens_per_second == pytest.approx(1000 / 36)
    # Steps are whole.
    assert found.days(99_001) == found.days(100_000) == pytest.approx(1 / 24)
    assert found.cost(100_000, price_per_hour=3.0) == pytest.approx(12.0)


def test_the_slower_network_costs_time() -> None:
    slow = replace(H100, intra_node_bandwidth=1e6)
    assert (
        by_name(on(slow, 2))["ddp"].tokens_per_second
        < by_name(ON_H100.candidates(2))["ddp"].tokens_per_second
    )


def test_host_memory_has_an_end_too() -> None:
    offloaded = by_name(ON_H100.candidates(2))[OFFLOAD]
    assert offloaded.host_gb == pytest.approx(offloaded.memory.host * 2 / GB)
    assert offloaded.fits
    poor = replace(H100, host_memory_gb=offloaded.host_gb)
    found = by_name(on(poor, 2))[OFFLOAD]
    assert not found.fits
    assert "host memory" in nothing_fits([found])


def test_error_if_nothing_fits_names_what_to_change() -> None:
    small = replace(H100, memory_gb=1e-6)
    found = on(small, 2)
    assert cheapest(found) is None
    assert "expected a model that fits, but the closest setup" in nothing_fits(found)


@pytest.mark.parametrize("world_size", [0, 12])
def test_devices_that_do_not_fill_their_machines_are_rejected(world_size: int) -> None:
    with pytest.raises(ValueError, match=r"world_size: expected up to 8 devices, or a multiple"):
        ON_H100.candidates(world_size)
