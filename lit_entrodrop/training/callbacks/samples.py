"""Text samples of the model during training."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_entrodrop.data.chats.stopping import stop_tokens
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.model.generation import continue_prompts, sample_tokens, truncate_at
from lit_entrodrop.runs.writing import write_whole
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.callbacks.checkpoints import ends_epoch

FILE_NAME = "samples.jsonl"
Row = dict[str, int | str]


@final
@dataclass(eq=False)
class Samples(L.Callback):
    """Let the model continue prompts, and write the texts to ``samples.jsonl`` and TensorBoard.

    Samples are drawn at the validation that ends an epoch, with random numbers of their own, so
    that training is the same with and without them. All ranks run the model, sharded or not.

    Args:
        every_n_epochs: Number of epochs between samples.
        count: Number of samples each time.
        new_tokens: Maximum number of tokens of a sample; fewer if the model's context ends.
        temperature: Temperature of sampling; 0 for greedy decoding.
        prompts: Texts to continue, in turn; null for the first tokens of validation documents.
        prompt_tokens: Number of these first tokens.
        seed: Seed of sampling.
        show: Whether to print the samples too.
    """

    every_n_epochs: int = 1
    count: int = 4
    new_tokens: int = 32
    temperature: float = 0.0
    prompts: list[str] | None = None
    prompt_tokens: int = 8
    seed: int = 0
    show: bool = False
    rows: list[Row] = field(init=False, default_factory=list, repr=False)
    _ends_epoch: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        settings = ("every_n_epochs", "count", "new_tokens", "prompt_tokens")
        check_at_least(1, **{name: getattr(self, name) for name in settings})
        check_at_least(0, seed=self.seed)
        given = self.prompts is None or (self.prompts and all(self.prompts))
        warm = self.temperature == 0 or 0.01 <= self.temperature <= 100
        if not warm or not given or self.seed >= 2**31:
            raise ValueError(
                "samples: expected temperature 0, or 0.01 to 100, prompts that are texts or null, "
                f"and seed below 2**31, got {self.temperature}, {self.prompts} and {self.seed}: "
                "remove prompts to use validation documents"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the path of the file."""
        self._path = Path(trainer.strategy.broadcast(trainer.default_root_dir)) / FILE_NAME
        self._writes = trainer.is_global_zero

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record whether the epoch ends."""
        self._ends_epoch = ends_epoch(trainer, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Draw samples after the last validation of an epoch."""
        epoch = trainer.current_epoch + 1
        if trainer.sanity_checking or not self._ends_epoch or epoch % self.every_n_epochs:
            return
        tokenizer = pl_module.tokenizer
        # The data module may replace the chat template.
        stop = stop_tokens(pl_module.data.tokenizer)
        prompts = self._prompts(pl_module)
        with trainer.precision_plugin.forward_context():
            choose = self._choose(trainer)
            written = continue_prompts(pl_module.causal_lm, prompts, self.new_tokens, choose)
        rows: list[Row] = [
            {
                "step": trainer.global_step,
                "epoch": epoch,
                "prompt": tokenizer.decode(prompt),
                "text": tokenizer.decode(truncate_at(tokens, stop)),
            }
            for prompt, tokens in zip(prompts, written, strict=True)
        ]
        self.rows += rows
        self._write()
        self._log(trainer, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return all samples of the run so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the samples of a checkpoint."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._write()

    def _prompts(self, pl_module: Any) -> list[list[int]]:
        if self.prompts is None:
            blocks = pl_module.data.blocks(pl_module.data.held_out[0])
            found = first_tokens(blocks, self.count, self.prompt_tokens)
        else:
            found = [pl_module.tokenizer(prompt)["input_ids"] for prompt in self.prompts]
        return [found[number % len(found)] for number in range(self.count)]

    def _choose(self, trainer: L.Trainer) -> Callable[[Tensor], Sequence[int]]:
        generator = torch.Generator().manual_seed((self.seed << 32) + trainer.global_step)

        def choose(logits: Tensor) -> Sequence[int]:
            # Kernels may differ between ranks, but all must continue with the same tokens.
            return trainer.strategy.broadcast(sample_tokens(logits, self.temperature, generator))

        return choose

    def _write(self) -> None:
        if not self._writes:
            return
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        write_whole(self._path, "".join(lines))

    def _log(self, trainer: L.Trainer, rows: list[Row]) -> None:
        if not self._writes:
            return
        for row in rows if self.show else ():
            rank_zero_info(f"sample: {row['prompt']} ⟶ {row['text']}")
        texts = "\n\n".join(f"**{row['prompt']}**{row['text']}" for row in rows)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", texts, trainer.global_step)


def first_tokens(blocks: PackedBlocks, count: int, length: int) -> list[list[int]]:
    """Return up to `length` first tokens of up to `count` documents, evenly spaced among all.

    Each chunk of a long document counts as a document. The last token of each is left out.

    >>> from lit_entrodrop.data.packing.best_fit import pack_documents
    >>> from lit_entrodrop.data.tokenizing import TokenizedDocuments
    >>> documents = TokenizedDocuments(np.arange(9), np.ones(9, bool), np.array([4, 5]))
    >>> first_tokens(pack_documents(documents, block_size=9, pad_id=0), 2, 3)
    [[0, 1, 2], [4, 5, 6]]
    """
    starts = blocks.chunks.starts
    chosen = np.unique(np.linspace(0, len(starts) - 1, count).astype(int))
    stops = starts + np.clip(blocks.chunks.lengths - 1, 1, length)
    return [blocks.tokens[starts[each] : stops[each]].tolist() for each in chosen]
