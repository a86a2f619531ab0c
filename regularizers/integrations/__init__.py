"""Regularizers inside other trainers: Transformers, TRL, Axolotl.

``RegularizedTrainer`` is a ``transformers.Trainer``, and ``RegularizedSFTTrainer`` a
``trl.SFTTrainer``, which is imported on first use.
"""

from importlib import import_module
from typing import Any

from regularizers.integrations.trainer import RegularizedTrainer

__all__ = ["RegularizedSFTTrainer", "RegularizedTrainer"]


def __getattr__(name: str) -> Any:
    if name != "RegularizedSFTTrainer":
        raise AttributeError(f"module 'regularizers.integrations' has no attribute {name!r}")
    bases = (RegularizedTrainer, import_module("trl").SFTTrainer)
    kind = type(name, bases, {"__module__": __name__})
    globals()[name] = kind
    return kind
