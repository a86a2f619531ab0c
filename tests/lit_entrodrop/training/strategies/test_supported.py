"""The strategies that a config can name."""

import pytest

from lit_entrodrop.training import strategies
from lit_entrodrop.training.strategies import check_strategy, strategy_names
from tests.helpers.tiny import CONFIGS


def test_each_config_of_a_strategy_has_its_name() -> None:
    files = {path.stem for path in (CONFIGS / "strategy").glob("*.yaml")}
    # FSDP1 has no strategy any more, and its file means FSDP2.
    assert files - {"fsdp"} == set(strategy_names()) - {"auto"}


@pytest.mark.parametrize(
    "name",
    [
        "fsdp",
        "fsdp_cpu_offload",
        "FSDPStrategy",
        "lightning.pytorch.strategies.FSDPStrategy",
        "lit_entrodrop.training.strategies.FSDPStrategy",
    ],
)
def test_fsdp1_is_refused_by_all_its_names(name: str) -> None:
    with pytest.raises(ValueError, match=rf"got {name}: FSDP1 is not supported.*/fsdp2\.yaml"):
        check_strategy(name)


def test_the_class_of_fsdp1_is_refused_by_name() -> None:
    with pytest.raises(ImportError, match=r"FSDP1 is not supported.* configs/strategy/fsdp2\.yaml"):
        strategies.FSDPStrategy  # noqa: B018
    with pytest.raises(AttributeError, match="Nothing"):
        strategies.Nothing  # noqa: B018
