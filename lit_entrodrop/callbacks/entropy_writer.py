"""Write the entropies that a predict run finds."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lit_entrodrop.entropies import Split, blank_store
from lit_entrodrop.module import LitCausalLM
from lit_entrodrop.scoring import cached_store_path


class EntropyWriter(L.Callback):
    """Keep the entropies of all predicted blocks in one file.

    Args:
        split: the split that is predicted.
        output: the file to write; by default where a fit looks for entropies of this model.
    """

    def __init__(self, split: Split, output: str | None = None) -> None:
        self.split = split
        self.output = output

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make room for the entropies."""
        assert isinstance(pl_module, LitCausalLM), "`score` runs our module"
        self.store = blank_store(pl_module.data, self.split)
        self.path = (
            Path(self.output)
            if self.output
            else cached_store_path(
                pl_module.entropies.cache_dir, pl_module.causal_lm, self.store.fingerprint
            )
        )

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the entropies of a batch."""
        self.store.to(pl_module.device).record(batch["block_id"], outputs["entropy"])

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        self.store.merge_ranks()
        if trainer.is_global_zero:
            self.store.save(self.path)
            rank_zero_info(f"entropies: {self.path}")
