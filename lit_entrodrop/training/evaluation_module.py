"""The LightningModule that evaluates and scores a causal LM."""

from functools import cached_property
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.holdout.gains import HoldoutGains
from lit_entrodrop.entropy.provider import EntropyProvider
from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics, TokenValues
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runs.checkpoints.averages import choose_weights
from lit_entrodrop.runtime.lightning_compat import position_of
from lit_entrodrop.runtime.steps import Position, total_steps
from lit_entrodrop.training.optim import Optimization
from regularizers import Regularizers, Vocabulary
from regularizers.functional import IGNORE_INDEX


class EvaluationModule(L.LightningModule):
    """Evaluate a causal LM on clean input, by entropy bucket.

    Subclasses set the attributes below and build the model.
    """

    lm: LMConfig
    regularizers: Regularizers
    causal_lm: CausalLM
    entropies: EntropyProvider
    holdout_gains: HoldoutGains
    metrics: RunMetrics
    optimization: Optimization
    #: Position in training, of the checkpoint that was loaded; the start without one.
    position = Position()

    @property
    def data(self) -> TextDataModule:
        """The data module of the run."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, TextDataModule):
            raise ValueError(
                "data: expected lit_entrodrop.data.TextDataModule, which numbers the blocks whose "
                f"entropies are stored, got {type(data).__name__}"
            )
        return data

    @property
    def is_fitting(self) -> bool:
        """Whether the trainer runs `fit`."""
        return self.trainer.state.fn == TrainerFn.FITTING

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return load_tokenizer(self.lm.tokenizer_source, self.lm.add_tokens)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The properties of the tokenizer that regularizers use."""
        return Vocabulary.of_tokenizer(self.tokenizer)

    @cached_property
    def token_counts(self) -> Tensor | None:
        """Occurrences of each token id in the training text without replay, if required."""
        if not self.regularizers.requirements.token_counts:
            return None
        return self.data.blocks("train").token_counts(self.vocabulary.size).to(self.device)

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return total_steps(
            self.data.steps_per_epoch(),
            self.trainer.max_epochs,
            self.trainer.max_steps,
            self.position,
            self.trainer.accumulate_grad_batches,
        )

    @property
    def progress(self) -> float:
        """Share of the run's optimizer steps that are done, in [0, 1]."""
        return self.trainer.global_step / self.total_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore position and entropies; to evaluate, choose the weights."""
        self.position = position_of(checkpoint)
        self.entropies.load_state_dict(checkpoint["entropies"])
        if not self.is_fitting:
            choose_weights(checkpoint, getattr(self.trainer, "weights", "best"))

    def on_validation_start(self) -> None:
        """Restore the entropies of the checkpoint."""
        self.entropies.restore_evaluated(self.data, self.device)

    def on_test_start(self) -> None:
        """Restore the entropies of the checkpoint."""
        self.entropies.restore_evaluated(self.data, self.device)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Add the stored entropies of a batch, on the host, where its block ids are known."""
        if self.trainer.validating or self.trainer.sanity_checking:
            return self.entropies.attach(batch, self.data.evaluated[dataloader_idx])
        return self.entropies.attach(batch, "test") if self.trainer.testing else batch

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> TokenValues:
        """Accumulate the metrics of a batch."""
        return self._evaluate(batch, self.data.evaluated[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> TokenValues:
        """Accumulate the metrics of a batch."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Return the batch with ``nll`` and ``entropy`` of every token.

        Both are ``[B, T]`` fp32, nats; NaN for a token that nothing predicts.
        """
        real = batch["document_ids"] >= 0
        every_token = batch["input_ids"].masked_fill(~real, IGNORE_INDEX)
        outputs = forward_clean(self.causal_lm, {**batch, "labels": every_token})
        nll = outputs.nll.masked_fill(outputs.entropy.isnan(), torch.nan)
        return {**batch, "nll": nll, "entropy": outputs.entropy}

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all evaluated splits, and their gap."""
        self.log_dict(self.metrics.pop(self.data.evaluated), logger=True)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self.log_dict(self.metrics.pop(["test"]), logger=True)

    def _evaluate(self, batch: Batch, split: str) -> TokenValues:
        outputs = forward_clean(self.causal_lm, batch)
        sources = list(self.data.weights)
        return self.metrics.update(split, outputs, batch, self.entropies.edges, sources)
