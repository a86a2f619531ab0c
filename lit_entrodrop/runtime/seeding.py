"""Seed PyTorch's default generators at every step."""

import torch


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the default generator of the CPU and of a device.

    ``torch.manual_seed`` does so for every kind of device, and takes about a millisecond where one
    of them was not used yet, as it then notes down from where it was called.

    Args:
        seed: 64 bits.
        device: where the model is.

    >>> seed_default_generators(0, torch.device("cpu"))
    >>> torch.default_generator.initial_seed()
    0
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
