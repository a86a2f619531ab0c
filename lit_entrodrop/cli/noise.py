"""Filters for warnings and log lines of libraries that do not help the user."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = (
    ".*LeafSpec.*",
    "LightningCLI's args parameter",
    "Be aware that when using `ckpt_path`",
    # `validate` and `test` print a table; only a logger would keep a copy.
    "You called `self.log.*no logger configured",
    # Values that no interval has logged are logged when the epoch ends.
    ".*smaller than the logging interval",
    # The logged metrics are already sums over ranks.
    ".*sync_dist=True",
    # The folder of a run that is resumed; any other use of it is an error.
    ".*exists and is not empty",
    # Only the module knows the entropies of a batch.
    ".*`on_before_batch_transfer` in `LightningModule`",
    # `export` reads shards in one process on purpose.
    "torch.distributed is disabled",
    # DeepSpeed calls collectives by names that PyTorch is about to change.
    ".*torch.distributed.*_tensor` is deprecated",
    # DeepSpeed clips by the norm that the trainer sets.
    "Since DeepSpeed handles gradient clipping",
    # The file is refused, or read without running code.
    "Detected pickle protocol",
    # `export` merges the files of a checkpoint.
    "When saving the DeepSpeed Stage 3 checkpoint",
    # peft reads an attribute that Transformers is about to rename.
    ".*is_gradient_checkpointing` is deprecated",
)
# By logger: lines that announce a default, an absent device or another product.
LINES = {
    "lightning.fabric.utilities.seed": "Seed set to",
    "lightning.pytorch.utilities.rank_zero": (
        r"Tip:|[GTH]PU available: False|^`Trainer\(.*=1\.0\)` was configured"
        r"|^Restor(ing|ed all) states (from|of)|^Loaded model weights"
    ),
    "DeepSpeed": "^Setting accelerator to CPU",
}


def silence_libraries() -> None:
    """Hide warnings and log lines that need no action."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LINES:
        logging.getLogger(name).addFilter(_is_wanted)
    # Flattening device meshes would merge two collectives; it is not needed.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


@contextmanager
def lightning_warnings_only() -> Iterator[None]:
    """Hide what Lightning logs below a warning, within the context."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not re.search(LINES[record.name], record.getMessage())
