"""Evaluation files: the results of each validation by document, in the run folder."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any, final

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data.preparing.splitting import SPLITS
from lit_entrodrop.data.tokens.token_text import pieces
from lit_entrodrop.evaluation.metrics.document_losses import DocumentLosses
from lit_entrodrop.evaluation.metrics.entropy_histogram import EntropyHistogram
from lit_entrodrop.evaluation.metrics.passage_losses import Passage, PassageLosses, choose_passages
from lit_entrodrop.runs.evaluations import (
    Evaluation,
    evaluation_path,
    remove_evaluations_after,
    write_run_info,
)
from lit_entrodrop.runs.metric_name import AVERAGED
from lit_entrodrop.runtime.machine import device_name
from lit_entrodrop.runtime.ranks import data_rank

SCHEMA = 1


@final
class EvaluationFiles(L.Callback):
    """Write the loss of every validation document, an entropy histogram, and some passages.

    Each validation writes one small file into ``evaluations/``, and one for each evaluation set
    into a folder of its name there. With `model.average`, another folder with `_average` has those
    of the averaged weights. The diagnosis of overfitting, the report and comparisons read
    these files. ``run.json`` has the settings that they share.

    Args:
        passages: Number of validation passages whose loss and entropy are kept by token.
        passage_tokens: Maximum number of tokens of a passage.
    """

    def __init__(self, passages: int = 4, passage_tokens: int = 160) -> None:
        if passages < 0 or passage_tokens < 2:
            raise ValueError(
                "monitors.evaluations: expected passages >= 0 and passage_tokens >= 2, got "
                f"{passages} and {passage_tokens}: take for example 4 and 160"
            )
        self.passages, self.passage_tokens = passages, passage_tokens
        self._records: dict[str, _SplitRecord] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the run folder."""
        self.folder = Path(trainer.strategy.broadcast(trainer.default_root_dir))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove evaluations that the resumed run will repeat."""
        if trainer.is_global_zero:
            remove_evaluations_after(self.folder, trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Reset the accumulators."""
        self._start(pl_module.data.held_out, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the accumulators."""
        self._start(["test"], pl_module)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Accumulate a batch of held-out text."""
        self._count(pl_module.data.evaluated[dataloader_idx], trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Accumulate a batch."""
        self._count("test", trainer, pl_module, outputs, batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the evaluations of this step."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        whole = trainer.num_sanity_val_steps == float("inf")
        if not trainer.sanity_checking or (whole and not trainer.global_step):
            self._write(trainer, pl_module, None if fitting else "validation")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the evaluation of the checkpoint."""
        self._write(trainer, pl_module, "test")

    def count_averaged(self, split: str, pl_module: Any, outputs: Any, batch: Any) -> None:
        """Accumulate a batch of held-out text that the averaged weights have evaluated."""
        if split in self._records:
            name = f"{split}{AVERAGED}"
            if name not in self._records:
                size = (self.passages, self.passage_tokens)
                self._records[name] = _SplitRecord(split, pl_module, size)
            self._count(name, pl_module.trainer, pl_module, outputs, batch)

    def _start(self, splits: Sequence[str], pl_module: Any) -> None:
        size = (self.passages, self.passage_tokens)
        self._records = {split: _SplitRecord(split, pl_module, size) for split in splits}

    def _count(
        self, split: str, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any
    ) -> None:
        # Ranks that share a batch count it once.
        if split in self._records and data_rank(trainer).first:
            self._records[split].update(outputs, batch, pl_module.entropies.edges)

    def _write(self, trainer: L.Trainer, pl_module: Any, split: str | None) -> None:
        step, epoch = _position(trainer, pl_module)
        for name, record in self._records.items():
            evaluation = record.compute(step, epoch, edges_of(pl_module))
            evaluation_set = "" if name in SPLITS else name
            if trainer.is_global_zero:
                evaluation.save(evaluation_path(self.folder, step, split, evaluation_set))
        if trainer.is_global_zero and split is None and self._records:
            first, record = next(iter(self._records.items()))
            write_run_info(self.folder, run_info(pl_module, first, record.passages))
        self._records = {}


class _SplitRecord:
    """Losses by document, entropies and passages of one evaluation of a split."""

    def __init__(self, split: str, module: Any, size: tuple[int, int]) -> None:
        self.blocks, device = module.data.blocks(split), module.device
        seed, names = module.data.hparams["split_seed"], module.entropies.buckets.names
        self.passages = choose_passages(self.blocks, *size, seed=seed)
        self.losses = DocumentLosses(self.blocks.num_documents, names).to(device)
        self.histogram = EntropyHistogram(module.vocabulary.size).to(device)
        self.of_passages = PassageLosses(self.passages).to(device)

    def update(self, outputs: Any, batch: Any, edges: Tensor | None) -> None:
        nll, entropy, valid = outputs["nll"], outputs["entropy"], outputs["valid"]
        block_id, document_ids = batch["block_id"].cpu(), batch["document_ids"].cpu()
        document = self.blocks.document_numbers(block_id, document_ids).to(nll.device)
        self.losses.update(nll, valid, document, batch.get("entropy"), edges)
        self.histogram.update(entropy[valid])
        self.of_passages.update(nll, entropy, valid, block_id)

    def compute(self, step: int, epoch: float, edges: NDArray[np.float64]) -> Evaluation:
        """Combine all ranks; call it on every rank."""
        nll, tokens = self.losses.compute()
        histogram = self.histogram.compute()
        passage_nll, passage_entropy = (each.cpu().numpy() for each in self.of_passages.compute())
        return Evaluation(
            step,
            epoch,
            nll.cpu().double().numpy(),
            tokens.cpu().numpy(),
            histogram.cpu().numpy(),
            self.histogram.edges.numpy(),
            passage_nll,
            passage_entropy,
            edges,
        )


def run_info(module: Any, split: str, passages: list[Passage]) -> dict[str, Any]:
    """Return what all evaluations of a fit share, with passages of a split, as plain values."""
    data, entropies = module.data, module.entropies
    rows = [
        data.blocks(split)[passage.block]["input_ids"][passage.start : passage.stop]
        for passage in passages
    ]
    store = entropies.stores.get(split)
    known = [
        [] if store is None else store.lookup(torch.tensor([passage.block]))[0].tolist()
        for passage in passages
    ]
    return {
        "schema": SCHEMA,
        "buckets": {
            "names": list(entropies.buckets.names),
            "edges": [round(edge, 4) for edge in edges_of(module).tolist()],
        },
        "passages": {
            "tokens": [pieces(module.tokenizer, row.tolist()) for row in rows],
            "reference_entropy": [
                [None if isnan(value) else round(value, 4) for value in row[p.start : p.stop]]
                for p, row in zip(passages, known, strict=True)
            ],
        },
        "fingerprints": {split: data.fingerprint(split) for split in ("train", *data.evaluated)},
        "device": device_name(module.device),
        "total_steps": module.total_steps,
        "train_tokens": data.blocks("train").num_tokens,
        "provenance": module.provenance(),
    }


def edges_of(module: Any) -> NDArray[np.float64]:
    """Return the edges between entropy buckets, in nats; empty without known entropies."""
    edges = module.entropies.edges
    return np.empty(0) if edges is None else edges.double().cpu().numpy()


def _position(trainer: L.Trainer, pl_module: Any) -> tuple[int, float]:
    if trainer.state.fn != TrainerFn.FITTING:
        position = pl_module.position
        return position.steps, float(position.epochs)
    if trainer.sanity_checking:
        return 0, 0.0
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return trainer.global_step, trainer.current_epoch + done / trainer.num_training_batches
