"""How strategies that write shards read them, and what others wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from lit_entrodrop.runs.checkpoints.reading import (
    check_same_model,
    check_same_strategy,
    read_all,
    read_checkpoint,
    sharded_shapes,
)
from lit_entrodrop.training.strategies.dealing import deal_out_weights


class ShardsOrAny(ParallelStrategy):
    """Resumes from what the strategy itself wrote, and evaluates a checkpoint of any strategy."""

    def own_shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of all weights, by name."""
        raise NotImplementedError

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, once it is known to be of this model and no code."""
        path = Path(self.broadcast(str(checkpoint_path)))
        if not self._is_fitting:
            return read_checkpoint(path)
        check_same_strategy(type(self).__name__, read_all(path), path)
        if path.is_dir():
            check_same_model(self.own_shapes(), sharded_shapes(path))
        return super().load_checkpoint(path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Deal out the weights of a checkpoint, unless they have been loaded in shards."""
        if not self._is_fitting:
            assert self.lightning_module is not None, "it is connected before"
            deal_out_weights(self.lightning_module, checkpoint["state_dict"])

    @property
    def _is_fitting(self) -> bool:
        assert self.lightning_module is not None, "it is connected before"
        return self.lightning_module.trainer.state.fn == TrainerFn.FITTING
