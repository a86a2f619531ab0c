"""Seeding of PyTorch's default generators."""

import torch


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the default generator of the CPU and of a device.

    ``torch.manual_seed`` seeds every kind of device. It takes about a millisecond if one of them is
    not initialized, because it then records the call stack.

    >>> seed_default_generators(0, torch.device("cpu"))
    >>> torch.default_generator.initial_seed()
    0
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
