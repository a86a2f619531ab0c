import pytest

from lit_entrodrop.commands.plan.estimates.communication import Traffic
from lit_entrodrop.commands.plan.estimates.speed import (
    OVERLAP,
    compute_seconds,
    exposed_seconds,
    offload_seconds,
)
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.hardware import find_hardware
from lit_entrodrop.model.sizes import sizes_of

H100 = find_hardware("h100")


def test_a_device_computes_at_the_share_of_its_peak() -> None:
    # 6 · 8·10⁹ operations, 1000 tokens, 40 % of 989·10¹²
    assert compute_seconds(48e9, 1000, 0.4, H100) == pytest.approx(0.12133, rel=1e-4)
    assert compute_seconds(48e9, 1000, 0.8, H100) == pytest.approx(0.12133 / 2, rel=1e-4)


def test_what_outlasts_computing_is_waited_for() -> None:
    nothing, within, out = Traffic(0, 0), Traffic(450e9, 0), Traffic(450e9, 50e9)
    assert exposed_seconds(within, nothing, 10.0, H100) == 0.0
    assert exposed_seconds(out, nothing, 0.0, H100) == pytest.approx(2.0)
    assert exposed_seconds(out, nothing, 1.0, H100) == pytest.approx(2 - OVERLAP)


def test_the_sums_of_tensor_parallelism_never_hide() -> None:
    sent, awaited = Traffic(450e9, 50e9), Traffic(450e9, 0)
    assert exposed_seconds(sent, awaited, 10.0, H100) == pytest.approx(1.0)


def test_offloading_takes_longer_with_each_micro_batch_and_less_on_more_machines() -> None:
    sizes = sizes_of(build_on_meta(LMConfig()))
    once = offload_seconds(sizes, 1, 1, 8.0, H100)
    # Weights twice in bf16 and fp32 gradients, over PCIe.
    more = offload_seconds(sizes, 1, 2, 8.0, H100) - once
    assert more == pytest.approx(sizes.parameters * (2 * 2 + 4) / H100.host_bandwidth)
    assert offload_seconds(sizes, 16, 1, 8.0, H100) == pytest.approx(
        offload_seconds(sizes, 8, 1, 8.0, H100) / 2
    )
