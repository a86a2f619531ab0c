"""The LightningModule: one training step as the algorithm that it is."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.holdout.gains import HoldoutGains
from lit_entrodrop.entropy.provider import EntropyProvider
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.evaluation.metrics import EntropyBuckets, MemorizationProbe, RunMetrics, Scores
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean, score_clean
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.model.vocabulary import vocabulary_of
from lit_entrodrop.runs.checkpoints.reading import check_same_model, shapes
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runtime.ranks import data_rank, gather, gather_rows
from lit_entrodrop.runtime.seeding import seed_default_generators
from lit_entrodrop.training.checks import (
    Position,
    check_evaluations,
    check_order,
    check_same_words,
    check_trainer,
    total_steps,
    warn_of_too_few_steps,
)
from lit_entrodrop.training.evaluation_history import EvaluationHistory
from lit_entrodrop.training.loggers import TensorBoard
from lit_entrodrop.training.models import build_for, build_frozen_for
from lit_entrodrop.training.optim import (
    AdamW,
    LRSchedule,
    clip_gradient_norm,
    decay_groups,
)
from lit_entrodrop.training.passes import forward, with_second_forward
from lit_entrodrop.training.preemption import Preemption
from lit_entrodrop.training.provenance import provenance
from lit_entrodrop.training.resuming import check_can_resume
from lit_entrodrop.training.strategies import FSDP2Strategy, scale_gradients
from lit_entrodrop.training.teacher import Teacher
from regularizers import Outputs, Regularizer, Regularizers, TrainingStep, Vocabulary
from regularizers.functional import IGNORE_INDEX


class LitCausalLM(L.LightningModule):
    """Fine-tune a causal LM under regularizers.

    Args:
        lm: which model to train, and how it is held.
        regularizers: applied in this order; none means plain fine-tuning.
        optimizer: class of the optimizer and its settings.
        lr_schedule: learning rate over training.
        reference: frozen model, named as in ``lm.pretrained``, for regularizers that need one; or,
            for entropies alone, a file written by ``lit-entrodrop score``; null means the model as
            it is before training.
        entropy_buckets: groups of tokens, by the entropy that the model gives them before it is
            trained, by which its losses are told.
        memorization: how it is found out whether documents are learned by heart; null for not.
        cache_dir: folder in which computed reference entropies are kept.
        seed: seed of the regularizers' random numbers.
    """

    def __init__(
        self,
        lm: LMConfig,
        regularizers: Sequence[Regularizer] = (),
        optimizer: OptimizerCallable = AdamW,
        lr_schedule: LRSchedule = LRSchedule(),  # noqa: B008
        reference: str | None = None,
        entropy_buckets: EntropyBuckets = EntropyBuckets(),  # noqa: B008
        memorization: MemorizationProbe | None = MemorizationProbe(),  # noqa: B008
        cache_dir: str = "~/.cache/lit-entrodrop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lm = lm
        self.regularizers = Regularizers(regularizers)
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.reference = reference
        self.seed = seed
        self.entropies = EntropyProvider(
            self.regularizers.requirements, reference, cache_dir, entropy_buckets
        )
        self.holdout_gains = HoldoutGains(self.regularizers.requirements, cache_dir)
        self.metrics = RunMetrics(entropy_buckets.names, memorization)
        self.last_evaluation: dict[str, float] = {}
        self.last_training: dict[str, float] = {}
        self.preemption = Preemption()
        self.step_weight = torch.zeros(())
        self._resumed_optimizer: str | None = None
        self.position = Position()
        self._logged_loss: float | None = None
        # A closure keeps the frozen model out of this module: it is neither trained nor saved.
        self._score_frozen: Callable[[Batch], Outputs] | None = None
        self._teacher: Teacher | None = None
        self.evaluations = EvaluationHistory(self.regularizers)

    def configure_model(self) -> None:
        """Build the model, once, and refuse data that it cannot take."""
        if hasattr(self, "causal_lm"):
            return
        self.regularizers.check(self.vocabulary)
        self.holdout_gains.check(self.data)
        required = self.regularizers.requirements
        check_order(self.data.order, required)
        check_evaluations(self.trainer, self.data, required)
        self.causal_lm = build_for(self.trainer, self.data, self.lm, self.tokenizer, required)

    def configure_callbacks(self) -> list[L.Callback]:
        """Return what ends a run that is told to end."""
        return [self.preemption]

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the learning rate of each step."""
        check_trainer(self.trainer, self.regularizers.requirements)
        optimizer = self.optimizer(decay_groups(self))
        if (decay := self.regularizers.requirements.teacher) is not None:
            self._teacher = Teacher(self.causal_lm, optimizer, decay)
        self._optimizer_class = type(optimizer).__name__
        self._configured = [
            # A schedule may change a rate in place.
            {name: deepcopy(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.lr_schedule.factor(step, self.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a micro-batch, and record its entropies and metrics.

        Args:
            batch: ``input_ids``, ``labels``, ``position_ids``, ``document_ids``, ``[B, T]`` int64
                each, and ``block_id`` ``[B]`` int64.
            batch_idx: Index of the micro-batch within the epoch.

        Returns:
            Loss summed over tokens, in units of T; :meth:`on_before_optimizer_step` divides the
            accumulated gradient by the weight of the tokens.
        """
        step = self.describe_step(batch, batch_idx)
        outputs, loss, weight = self.regularized_loss(batch, step, self.regularizers)
        self.entropies.record(batch, outputs.entropy)
        self.data.record_losses(batch["block_id"], outputs.nll, step.valid)
        self.step_weight += weight.detach()
        self.metrics.add_step(loss, weight.detach(), step.metrics, self.one)
        return loss / batch["labels"].shape[1]

    def regularized_loss(
        self, batch: Batch, step: TrainingStep, regularizers: Regularizers
    ) -> tuple[Outputs, Tensor, Tensor]:
        """Corrupt the tokens, perturb their embeddings, weight them, predict, add penalties.

        Leaves the module as it was, so that other steps and other regularizers can be tried.

        Args:
            batch: Batch as :meth:`training_step` takes it.
            step: Description of the step.
            regularizers: Regularizers to apply.

        Returns:
            Outputs of the forward pass, the loss summed over tokens, and the sum of their weights.
        """
        step = with_second_forward(step, self.causal_lm, regularizers, batch)
        # The model's own dropout, too, is a function of the step, so that a resumed run repeats it.
        seed_default_generators(replace(step, stream=-1).generator().initial_seed(), self.device)
        corrupted = regularizers.on_input_ids(step)
        perturb = partial(regularizers.on_embeddings, step=step)
        token_weight = regularizers.on_token_weight(step)
        outputs = forward(self.causal_lm, regularizers, batch, corrupted, perturb, token_weight)
        loss, weight = regularizers.reduce(outputs, step, token_weight)
        return outputs, loss, weight

    def describe_step(self, batch: Batch, batch_idx: int) -> TrainingStep:
        """Return what the regularizers may know about a micro-batch.

        Args:
            batch: Batch as :meth:`training_step` takes it.
            batch_idx: Index of the micro-batch within the epoch.
        """
        required = self.regularizers.requirements
        return TrainingStep(
            batch["input_ids"],
            batch["labels"],
            batch["document_ids"],
            self.vocabulary,
            entropy=self.entropies.of_inputs(batch, self.causal_lm),
            corpus_entropy=self.entropies.corpus_quantiles,
            progress=self._progress,
            global_step=self.trainer.global_step,
            epoch=self.trainer.current_epoch,
            micro_batch=batch_idx % self.trainer.accumulate_grad_batches,
            rank=data_rank(self.trainer).rank,
            seed=self.seed,
            # Several regularizers may ask for the same outputs.
            reference=cache(partial(self._score_frozen, batch)) if self._score_frozen else None,
            teacher=cache(partial(self._teacher, batch, required)) if self._teacher else None,
            gather=partial(gather_rows, trainer=self.trainer),
            holdout_gain=batch.get("holdout_gain"),
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradient by the weight of all tokens of the step, whichever micro-batch.

        Lightning has averaged the gradient over micro-batches and ranks; each was in units of T.
        Where ranks share a batch, its gradient and its weight are both counted for each of them.
        """
        weight = self.preemption.reduce_sum(self.step_weight)
        micro_batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factor = micro_batches * self.data.block_size / weight.clamp(min=1e-8)
        scale_gradients(self.trainer.strategy, optimizer, factor)
        self.step_weight.zero_()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, wherever their shards are."""
        max_norm = 0.0 if gradient_clip_algorithm == "value" else gradient_clip_val or 0.0
        if max_norm > 0 and isinstance(self.trainer.strategy, FSDP2Strategy):
            clip_gradient_norm(optimizer, max_norm)
        else:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )

    def on_fit_start(self) -> None:
        """Prepare what a step adds up."""
        self.step_weight = torch.zeros((), device=self.device)
        self.one = torch.ones((), device=self.device)
        # Lightning 2.6 would count an epoch twice when a run that is bounded by steps goes on.
        self.trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]

    def on_validation_start(self) -> None:
        """Provide the entropies for the validation that comes before the first step."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._provide_entropies()
        else:
            self.entropies.restore_evaluated(self.data, self.device)

    def on_test_start(self) -> None:
        """Take over the entropies that the checkpoint knows."""
        self.entropies.restore_evaluated(self.data, self.device)

    def on_train_start(self) -> None:
        """Let the optimizer settings that are given win over those of a restored checkpoint."""
        if self._resumed_optimizer not in (None, self._optimizer_class):
            raise ValueError(
                f"model.optimizer: expected {self._resumed_optimizer}, whose state the checkpoint "
                f"holds, got {self._optimizer_class}: take the former, or start a new run from the "
                "exported model"
            )
        self._provide_entropies()
        steps = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        warn_of_too_few_steps(self.regularizers.requirements, self.total_steps, steps)
        factor = self.lr_schedule.factor(self.trainer.global_step, self.total_steps)
        groups = self.trainer.optimizers[0].param_groups
        for group, configured in zip(groups, self._configured, strict=True):
            group.update(configured, initial_lr=configured["lr"], lr=configured["lr"] * factor)
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        scheduler.base_lrs = [configured["lr"] for configured in self._configured]

    def on_train_epoch_start(self) -> None:
        """Take over the entropies that the epoch before has recorded."""
        self.entropies.start_epoch()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the training metrics every ``trainer.log_every_n_steps`` optimizer steps."""
        stepped = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if stepped:
            self._log_training_if_due()
            self._show_loss()

    def on_train_epoch_end(self) -> None:
        """Log the training metrics of the last steps."""
        self._log_training()
        self._show_loss()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Look up the entropies of a batch on the host, where its blocks are known at once."""
        if self.trainer.training:
            return self.holdout_gains.attach(self.entropies.attach(batch, "train"))
        if self.trainer.validating or self.trainer.sanity_checking:
            return self.entropies.attach(batch, self.data.evaluated[dataloader_idx])
        return self.entropies.attach(batch, "test") if self.trainer.testing else batch

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Scores:
        """Count loss and accuracy on clean input, by reference entropy."""
        return self._evaluate(batch, self.data.evaluated[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> Scores:
        """Count loss and accuracy on clean input, by reference entropy."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Return the batch with ``nll`` and ``entropy`` of every token, on clean input.

        Both are ``[B, T]`` fp32, nats; NaN where nothing predicts the token.
        """
        real = batch["document_ids"] >= 0
        every_token = batch["input_ids"].masked_fill(~real, IGNORE_INDEX)
        outputs = forward_clean(self.causal_lm, {**batch, "labels": every_token})
        nll = outputs.nll.masked_fill(outputs.entropy.isnan(), torch.nan)
        return {**batch, "nll": nll, "entropy": outputs.entropy}

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all splits that are evaluated during training, and their gap."""
        self._log_evaluation(self.metrics.pop(self.data.evaluated))

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self._log_evaluation(self.metrics.pop(["test"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep entropies and metrics, and what `export` needs to rebuild the model."""
        # Callbacks that keep a checkpoint come before this module logs.
        self._log_training_if_due()
        for logger in self.loggers:
            # What a killed run goes on from must not be lost.
            logger.save()
        checkpoint["pending_metrics"] = gather(self.metrics.training_means.state_dict())
        checkpoint["metrics"] = [file.rows for file in self._metrics_files]
        checkpoint["optimizer_class"] = self._optimizer_class
        checkpoint["entropies"] = self.entropies.state_dict()
        checkpoint["evaluations"] = self.evaluations.told
        checkpoint["holdout_gains"] = self.holdout_gains.state_dict()
        checkpoint["trained_on"] = self.data.fingerprint("train")
        checkpoint["lm"] = asdict(self.lm)
        checkpoint["hf_config"] = self.causal_lm.unwrapped.config.to_dict()
        checkpoint["provenance"] = provenance(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over entropies and metrics, and refuse another model, data or strategy."""
        self.position = Position.of(checkpoint)
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_can_resume(checkpoint, self.trainer, self.data.fingerprint("train"), self.seed)
            self._resumed_optimizer = checkpoint["optimizer_class"]
            self._restore_metrics(checkpoint)
            self.evaluations.tell_again(checkpoint["evaluations"])
            self.__dict__.pop("total_steps", None)
        # The shards of a folder were compared when they were loaded.
        if "state_dict" in checkpoint:
            own = shapes(self.state_dict(keep_vars=True))
            check_same_model(own, shapes(checkpoint["state_dict"]))
        self.entropies.load_state_dict(checkpoint["entropies"])
        self.holdout_gains.load_state_dict(checkpoint.get("holdout_gains", {}))
        evaluating = self.trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING)
        if evaluating and checkpoint.get("trained_on") != self.data.fingerprint("train"):
            rank_zero_warn(
                "data: this model was trained on other blocks than these settings give for "
                "training, so it may have been trained on some that are evaluated now: give "
                "data.validation and data.test to `fit` already, and the same ones here"
            )

    @property
    def data(self) -> TextDataModule:
        """The data module of the run."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, TextDataModule):
            raise ValueError(
                "data: expected lit_entrodrop.data.TextDataModule, which numbers the blocks whose "
                f"entropies are kept, got {type(data).__name__}"
            )
        return data

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return load_tokenizer(self.lm.tokenizer_source)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What regularizers may know about the tokenizer."""
        return vocabulary_of(self.tokenizer)

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return total_steps(self.trainer, self.data, self.position)

    @property
    def _progress(self) -> float:
        return self.trainer.global_step / self.total_steps

    def _restore_metrics(self, checkpoint: dict[str, Any]) -> None:
        self.last_evaluation = checkpoint["provenance"]["metrics"]
        pending = checkpoint["pending_metrics"]
        if len(pending) == self.trainer.world_size:
            pending = pending[self.global_rank : self.global_rank + 1]
        elif self.global_rank > 0:
            pending = []
        for means in pending:
            self.metrics.training_means.load_state_dict(means)
        for file, rows in zip(self._metrics_files, checkpoint["metrics"], strict=False):
            file.restore(rows)
        for logger in self.loggers:
            if isinstance(logger, TensorBoard):
                logger.go_on_after(checkpoint["global_step"])

    @property
    def _metrics_files(self) -> list[MetricsFile]:
        return [logger for logger in self.loggers if isinstance(logger, MetricsFile)]

    def _provide_entropies(self) -> None:
        """Provide the entropies and the frozen model that the run needs, once.

        A checkpoint is restored by then, under every strategy.
        """
        if self.entropies.ready:
            return
        scorer: CausalLM | EntropyStore | None = None
        if self.reference is not None and Path(self.reference).suffix == ".safetensors":
            if self.regularizers.requirements.reference:
                raise ValueError(
                    "model.reference: expected a model, as a regularizer runs it, got the "
                    f"entropies {self.reference}: name a hub model or a model folder"
                )
            scorer = EntropyStore.load(Path(self.reference), self.data.fingerprint("train"))
        elif self.reference is not None or self.regularizers.requirements.reference:
            scorer = frozen = build_frozen_for(
                self.trainer, self.data, self.lm, self.reference, self.tokenizer
            )
            if self.regularizers.requirements.reference:
                required = self.regularizers.requirements
                if required.divergence:
                    check_same_words(self.causal_lm, frozen)
                self._score_frozen = partial(score_clean, frozen, required=required)
        # Lightning sets the precision for steps alone.
        with self.trainer.precision_plugin.forward_context():
            self.entropies.prepare(self.data, self.causal_lm, scorer)
            self.holdout_gains.prepare(self.data, self.causal_lm)

    def _log_training_if_due(self) -> None:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.trainer.global_step % every == 0:
            self._log_training()

    def _log_training(self) -> None:
        reduce_sum = partial(self.trainer.strategy.reduce, reduce_op="sum")
        if not (means := self.metrics.pop_training(reduce_sum)):
            return
        self._logged_loss = means["train/loss"]
        means |= self.regularizers.strengths(self._progress)
        means["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        means["epoch"] = self.trainer.current_epoch
        self.last_training = means
        for logger in self.loggers:
            logger.log_metrics(means, self.trainer.global_step)

    def _show_loss(self) -> None:
        # By itself, as Lightning allows no `log` while a checkpoint is written.
        if self._logged_loss is not None:
            self.log("train/loss", self._logged_loss, prog_bar=True, logger=False)
            self._logged_loss = None

    def _evaluate(self, batch: Batch, split: str) -> Scores:
        outputs = forward_clean(self.causal_lm, batch)
        return self.metrics.update(split, outputs, batch, self.entropies.edges)

    def _log_evaluation(self, metrics: dict[str, Tensor]) -> None:
        if self.trainer.sanity_checking:
            if self.trainer.global_step == 0 and not self.evaluations.told:
                self.evaluations.tell(metrics)
            # The pass before the first step is the starting point of the curves.
            for logger in self.loggers if self.trainer.global_step == 0 else []:
                logger.log_metrics({name: value.item() for name, value in metrics.items()}, step=0)
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting:
            told = [name for name in metrics if name.startswith("val/loss")]
            told += [name for name in ("gap/loss", "forgetting/loss") if name in metrics]
            losses = [f"{name} {metrics[name]:.3f}" for name in told]
            where = f"epoch {self.trainer.current_epoch + 1}, step {self.trainer.global_step}"
            rank_zero_info(f"{where}: {', '.join(losses)}")
            self.evaluations.tell(metrics)
            self.last_evaluation = self.evaluations.told[-1]
            row = {**self.last_evaluation, "epoch": self.trainer.current_epoch}
            for logger in self.loggers:
                logger.log_metrics(row, self.trainer.global_step)
                logger.save()
        # As for the logger, Lightning would take the number of a row from an entry `step`, which
        # would then name all checkpoints until the next validation.
        self.log_dict(metrics, logger=not fitting)
