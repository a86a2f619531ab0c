"""Lightning's plugin for writing and reading checkpoints."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lit_entrodrop.runs.checkpoints.reading import read_checkpoint


class StreamingCheckpointIO(TorchCheckpointIO):
    """Write directly to the file; Lightning would collect all bytes in memory first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint to one file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of any strategy; a sharded one without the optimizer state."""
        return read_checkpoint(Path(path))
