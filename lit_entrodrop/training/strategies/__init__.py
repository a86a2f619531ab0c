"""Strategies that shard a model over devices."""

from typing import NoReturn

from lit_entrodrop.training.strategies.base import StrategyHooks, hooks_of
from lit_entrodrop.training.strategies.deepspeed import DeepSpeedStrategy
from lit_entrodrop.training.strategies.fsdp2 import FSDP2Strategy
from lit_entrodrop.training.strategies.supported import check_strategy, strategy_names

__all__ = [
    "DeepSpeedStrategy",
    "FSDP2Strategy",
    "StrategyHooks",
    "check_strategy",
    "hooks_of",
    "strategy_names",
]


def __getattr__(name: str) -> NoReturn:
    # A config of an earlier version may name the class of FSDP1.
    if name == "FSDPStrategy":
        try:
            check_strategy(f"{__name__}.{name}")
        except ValueError as error:
            raise ImportError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
