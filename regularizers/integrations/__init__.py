"""Regularizers inside other trainers: Transformers, TRL, Axolotl.

``RegularizedTrainer`` and ``RegularizedSFTTrainer`` are ``transformers.Trainer`` and
``trl.SFTTrainer`` with ``RegularizedTrainerMixin``. Each library is imported on first use.
"""

from importlib import import_module
from typing import Any

from regularizers.integrations.trainer import RegularizedTrainerMixin

__all__ = ["RegularizedSFTTrainer", "RegularizedTrainer", "RegularizedTrainerMixin"]

BASES = {
    "RegularizedTrainer": ("transformers", "Trainer"),
    "RegularizedSFTTrainer": ("trl", "SFTTrainer"),
}


def __getattr__(name: str) -> Any:
    if name not in BASES:
        raise AttributeError(f"module 'regularizers.integrations' has no attribute {name!r}")
    library, base = BASES[name]
    kind = type(name, (RegularizedTrainerMixin, getattr(import_module(library), base)), {})
    kind.__module__ = __name__
    globals()[name] = kind
    return kind
