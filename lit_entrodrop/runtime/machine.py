"""What a result comes from: the device, and the version or commit of this package."""

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from lit_entrodrop import __version__

CHECKOUT = Path(__file__).parents[2]


def device_name(device: torch.device | str = "cpu") -> str:
    """Return the model of a GPU or of the CPU, or the kind of another device.

    >>> device_name("meta")
    'meta'
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    if kind != "cpu":
        return kind
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or f"{sys.platform} CPU"


@cache
def source_version(checkout: Path = CHECKOUT) -> str:
    """Return the version of this package, with the commit if it runs from a checkout.

    >>> source_version(Path("not/a/checkout")) == __version__
    True
    """
    # A package in an environment within a user's repository is not of that repository.
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__.partition('+')[0]}+{done.stdout.strip().replace('-', '.')}"
