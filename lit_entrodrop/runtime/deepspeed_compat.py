"""Uses of private DeepSpeed APIs, with the reason for each.

Checked with deepspeed 0.19.8; ``pyproject.toml`` bounds the version. ``test_deepspeed_compat.py``
fails when one is renamed; the tests of the ZeRO strategies fail when its behavior changes.
"""

import contextlib
import io
import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

# Any optimizer is allowed here, and no backward hook needs the content of the model's outputs.
UNFOUNDED_WARNINGS = ("untested optimizer", "unknown inputs or outputs type")


def drop_unfounded_warnings() -> None:
    """Silence warnings of DeepSpeed that do not apply."""
    # Adding the same function again changes nothing.
    logging.getLogger("DeepSpeed").addFilter(_is_founded)


def _is_founded(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in UNFOUNDED_WARNINGS)


def set_gradient_divisor(zero_optimizer: Any, divisor: Any) -> None:
    """Divide the gradients of the coming step by a number, before they are clipped.

    DeepSpeed stores gradients in its own buffers and divides them by its loss scale.
    """
    zero_optimizer.loss_scale = divisor


@contextlib.contextmanager
def loading_universal(engine: Any) -> Iterator[None]:
    """Let an engine load a universal checkpoint inside the context.

    The public option is read when the engine is created, before the checkpoint is known.
    """
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = False


def separate_step_counts(zero_optimizer: Any) -> None:
    """Give each parameter of the optimizer its own step count after a universal checkpoint.

    DeepSpeed shares one tensor between all parameters, and each of them increments it.
    """
    for parameter, state in zero_optimizer.optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, copy=True)


def to_universal(folder: Path, output: Path) -> str:
    """Convert a checkpoint to one that any number of devices can load; return the error, or ""."""
    from deepspeed.checkpoint import ds_to_universal

    arguments = Namespace(
        input_folder=str(folder),
        output_folder=str(output),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    try:
        # The converter prints its progress.
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()):
            ds_to_universal.main(arguments)
    except Exception as error:  # DeepSpeed documents no exceptions
        return repr(error)
    return ""
