"""The strategies by the names of their files in ``configs/strategy``."""

# From the simplest to the one that asks most of machine and user.
STRATEGIES = (
    "ddp",
    "fsdp2",
    "deepspeed_zero2",
    "fsdp",
    "deepspeed_zero3",
    "fsdp2_tp",
    "deepspeed_zero3_offload",
)


def check_known(strategy: str) -> None:
    """Refuse the name of a strategy that there is not.

    Raises:
        ValueError: naming those that there are.

    >>> check_known("ddp")
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")
