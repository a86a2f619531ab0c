"""Strategies with an estimate of memory and traffic, by their names in ``configs/strategy``."""

# In order of rising demands on machine and user; of equally fast strategies, the first is chosen.
STRATEGIES = (
    "ddp",
    "fsdp2",
    "deepspeed_zero2",
    "deepspeed_zero3",
    "fsdp2_tp",
    "deepspeed_zero3_offload",
)


def check_known(strategy: str) -> None:
    """Refuse the name of a strategy that cannot be estimated.

    Raises:
        ValueError: If the name is unknown; the message lists those that are known.

    >>> check_known("ddp")
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")
