"""The strategies that a run can use."""

import re
from inspect import isclass
from pkgutil import resolve_name

from lightning.pytorch.strategies import Strategy, StrategyRegistry

from lit_entrodrop.training.strategies.base import StrategyHooks

FSDP1 = re.compile(r"fsdp(_cpu_offload)?|(.*\.)?FSDPStrategy")
# Under these the loss would not be divided by all tokens of a step.
LIGHTNING_SHARDING = re.compile(
    r"deepspeed(_stage_.+)?|(pytorch_)?lightning\..*(DeepSpeed|ModelParallel)Strategy"
)


def strategy_names() -> list[str]:
    """Return the values of ``trainer.strategy`` that name a strategy.

    >>> {"auto", "ddp", "fsdp2"} <= set(strategy_names())
    True
    """
    entries = StrategyRegistry.items()
    with_hooks = [name for name, each in entries if issubclass(each["strategy"], StrategyHooks)]
    return ["auto", "ddp", *sorted(with_hooks)]


def check_strategy(name: str) -> None:
    """Refuse unknown names, FSDP1, and strategies of Lightning that this package replaces.

    A strategy is named as in Lightning's registry, or by the full name of its class.

    >>> check_strategy("fsdp2")
    """
    if FSDP1.fullmatch(name):
        raise ValueError(
            f"trainer.strategy: expected {', '.join(strategy_names())}, got {name}: FSDP1 is not "
            "supported, as PyTorch retires it; add configs/strategy/fsdp2.yaml"
        )
    if LIGHTNING_SHARDING.fullmatch(name):
        raise ValueError(
            f"trainer.strategy: expected {', '.join(strategy_names())}, got {name}, under which "
            "the loss is not divided by all tokens of a step: add a file of configs/strategy"
        )
    if name not in ("auto", *StrategyRegistry.available_strategies()) and not _is_strategy(name):
        raise ValueError(
            f"trainer.strategy: expected {', '.join(strategy_names())}, or the path of a class, "
            f"got {name}: correct it, or add a file of configs/strategy"
        )


def _is_strategy(path: str) -> bool:
    try:
        kind = resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return False
    return isclass(kind) and issubclass(kind, Strategy)
