"""Regularizers for language-model training, in pure PyTorch.

They work in any training loop: see ``examples/`` for a plain PyTorch loop and for the Hugging Face
Trainer. Each method has its own module, and its class is exported here: ``regularizers.ZLoss``.

Each class is imported on first use. Type checkers read ``__init__.pyi``, which
``python -m regularizers.stub`` generates.
"""

from importlib import import_module
from typing import Any

from regularizers.sources import exported


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name in exported():
        value = getattr(import_module(f"regularizers.{exported()[name]}"), name)
        globals()[name] = value
        return value
    if name == "__all__":
        return sorted(exported())
    raise AttributeError(f"module 'regularizers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *exported()})
