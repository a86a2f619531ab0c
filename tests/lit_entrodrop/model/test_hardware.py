import pytest

from lit_entrodrop.model.hardware import HARDWARE, find_hardware


def test_unknown_hardware_is_refused_with_all_that_is_known() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*, got 'tpu'") as refused:
        find_hardware("tpu")
    assert all(name in str(refused.value) for name in HARDWARE)


def test_memory_gets_slower_the_farther_it_is() -> None:
    for each in HARDWARE.values():
        assert find_hardware(each.name.upper()) is each
        assert each.inter_node_bandwidth < each.intra_node_bandwidth
        assert each.host_bandwidth <= each.intra_node_bandwidth
        assert each.host_memory_gb > each.memory_gb
