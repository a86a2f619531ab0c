"""Checks at three moments before training: of the config, of the model and of a checkpoint."""

from lit_entrodrop.training.preflight.checkpoint import check_checkpoint, check_optimizer
from lit_entrodrop.training.preflight.config import check_config
from lit_entrodrop.training.preflight.model import check_model, check_reference

__all__ = [
    "check_checkpoint",
    "check_config",
    "check_model",
    "check_optimizer",
    "check_reference",
]
