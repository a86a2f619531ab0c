"""The LightningModule: the training algorithm."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_entrodrop.entropy.buckets import EntropyBuckets
from lit_entrodrop.entropy.holdout.gains import HoldoutGains
from lit_entrodrop.entropy.provider import EntropyProvider
from lit_entrodrop.evaluation.metrics.memorization import MemorizationProbe
from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runtime.lightning_compat import count_epochs_once
from lit_entrodrop.runtime.ranks import data_rank, gather_rows
from lit_entrodrop.training import optim, passes
from lit_entrodrop.training.averaging import Average, Averaging
from lit_entrodrop.training.evaluation_module import EvaluationModule
from lit_entrodrop.training.metric_logging import MetricLogging
from lit_entrodrop.training.models import Reference, build_model
from lit_entrodrop.training.penalties import ParameterPenalties
from lit_entrodrop.training.preemption import Preemption
from lit_entrodrop.training.preflight.checkpoint import check_checkpoint
from lit_entrodrop.training.preflight.config import check_config
from lit_entrodrop.training.provenance import provenance
from lit_entrodrop.training.strategies import hooks_of
from regularizers import Curriculum, Outputs, Regularizer, Regularizers, TrainingStep
from regularizers.passes import seed_dropout


class LitCausalLM(EvaluationModule):
    """Fine-tune a causal LM under regularizers.

    Args:
        lm: The model to train and how its weights are stored.
        regularizers: Regularizers, applied in this order; none for plain fine-tuning.
        optimizer: Class of the optimizer and its settings.
        lr_schedule: Learning-rate schedule.
        weight_decay_schedule: Weight decay over training; null for that of the optimizer.
        groups: Learning rate, weight decay and freezing of parameters, by their names.
        layer_lr_decay: Learning rate of each transformer block as a factor of the next one's.
        average: Average of the weights, which is evaluated beside them; null for none.
        reference: Frozen model for regularizers that need one, named as in ``lm.pretrained``; or,
            for entropies alone, a file of ``lit-entrodrop score``; null for the initial model.
        entropy_buckets: Token groups, by entropy under the initial model, for which losses are
            reported separately.
        memorization: Verbatim-memorization probe; null disables it.
        cache_dir: Folder for computed reference entropies.
        seed: Seed of the regularizers' random numbers.
    """

    def __init__(
        self,
        lm: LMConfig,
        regularizers: Sequence[Regularizer] = (),
        optimizer: OptimizerCallable = optim.AdamW,
        lr_schedule: optim.LRSchedule = optim.LRSchedule(),  # noqa: B008
        weight_decay_schedule: Curriculum | None = None,
        groups: Sequence[optim.ParameterRule] = (),
        layer_lr_decay: float = 1.0,
        average: Average | None = None,
        reference: str | None = None,
        entropy_buckets: EntropyBuckets = EntropyBuckets(),  # noqa: B008
        memorization: MemorizationProbe | None = MemorizationProbe(),  # noqa: B008
        cache_dir: str = "~/.cache/lit-entrodrop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lm, self.average, self.seed = lm, average, seed
        self.regularizers = Regularizers(regularizers)
        self.optimization = optim.Optimization(
            optimizer, lr_schedule, groups, layer_lr_decay, weight_decay_schedule
        )
        required = self.regularizers.requirements
        self.reference = Reference(reference, required)
        self.entropies = EntropyProvider(required, reference, cache_dir, entropy_buckets)
        self.holdout_gains = HoldoutGains(required, cache_dir)
        self.metrics = RunMetrics(entropy_buckets.names, memorization)
        self.metric_logging = MetricLogging(self.metrics, self.regularizers, weight_decay_schedule)
        self.penalties = ParameterPenalties(self.regularizers)
        self.preemption = Preemption()
        self.step_weight = torch.zeros(())
        self.averaging = Averaging(average, required.teacher, self.metrics)

    def configure_model(self) -> None:
        """Check the config, then build the model, once."""
        if hasattr(self, "causal_lm"):
            return
        check_config(self, self.average)
        self.causal_lm = build_model(self, self.lm, self.tokenizer, self.regularizers.requirements)
        optim.freeze(self.causal_lm, self.optimization.rules)
        self.penalties.keep_initial(self.causal_lm if self.is_fitting else None, self.lm.pretrained)

    def configure_callbacks(self) -> list[L.Callback]:
        """Return the callbacks that end the run on a signal and exchange its weights."""
        return [self.preemption, optim.WeightSwitch()]

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its learning-rate schedule."""
        optimizer = self.optimization.build(self)
        self.averaging.attach(self, optimizer)
        return self.optimization.scheduled(optimizer, lambda: self.total_steps)

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
        self.metrics.add_step(loss, weight.detach(), step.metrics, outputs.auxiliary_loss)
        self.metrics.add_sources(self.data.mixture.names, batch, outputs.nll)
        return passes.with_auxiliary_loss(loss, weight, outputs) / batch["labels"].shape[1]

    def regularized_loss(
        self, batch: Batch, step: TrainingStep, regularizers: Regularizers
    ) -> tuple[Outputs, Tensor, Tensor]:
        """Run the hooks of regularizers and the model.

        The module stays unchanged, so that other steps and other regularizers can be tried.

        Returns:
            Outputs of the forward pass, the loss summed over tokens, and the sum of their weights.
        """
        seed_dropout(step)
        score = self.reference.score
        return passes.regularized_loss(self.causal_lm, regularizers, batch, step, score)

    def describe_step(self, batch: Batch, batch_idx: int) -> TrainingStep:
        """Return the properties of a micro-batch that regularizers use."""
        required, score = self.regularizers.requirements, self.reference.score
        return TrainingStep(
            *passes.tokens_to_regularize(batch),
            self.vocabulary,
            entropy=self.entropies.of_inputs(batch, self.causal_lm),
            corpus_entropy=self.entropies.corpus_quantiles,
            token_counts=self.token_counts,
            progress=self.progress,
            global_step=self.trainer.global_step,
            epoch=self.trainer.current_epoch,
            micro_batch=batch_idx % self.trainer.accumulate_grad_batches,
            rank=data_rank(self.trainer).rank,
            seed=self.seed,
            # Cached, as several regularizers may need the same outputs.
            reference=cache(partial(score, batch)) if score else None,
            teacher=self.averaging.teach(batch, required),
            gather=partial(gather_rows, trainer=self.trainer),
            holdout_gain=batch.get("holdout_gain"),
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradient by the weight of all tokens of the step, over all micro-batches.

        Without any weight, the step is skipped. Lightning averages the gradient, in units of T,
        over micro-batches and ranks. Ranks that share a batch each count its gradient and weight.
        """
        weight = self.preemption.reduce_sum(self.step_weight)
        micro_batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factor = micro_batches * self.data.block_size / weight.clamp(min=1e-8)
        hooks_of(self.trainer.strategy).scale_gradients(optimizer, factor)
        self.metrics.add_penalties(self.penalties.add(optimizer, self.progress, weight > 0))
        optim.skip_step_if(optimizer, weight == 0)
        self.metrics.add_skipped(weight == 0)
        self.step_weight.zero_()
        schedules = self.optimization.prepare_step(optimizer, self.progress)
        self.metric_logging.note_schedules(schedules, self.progress)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip gradients, wherever their shards are."""
        hooks = hooks_of(self.trainer.strategy)
        hooks.clip_gradients(self, optimizer, gradient_clip_val or 0.0, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        """Allocate the accumulator of a step on the device."""
        self.step_weight = torch.zeros((), device=self.device)
        count_epochs_once(self.trainer)

    def on_validation_start(self) -> None:
        """Provide the entropies of a fit, for the evaluation of the initial model."""
        if not self.is_fitting:
            return super().on_validation_start()
        self.reference.provide_entropies(self)

    def on_train_start(self) -> None:
        """Provide entropies, and apply the config's optimizer settings to a restored optimizer."""
        self.optimization.resume(self.trainer, self.total_steps)
        self.reference.provide_entropies(self)

    def on_train_epoch_start(self) -> None:
        """Switch to the entropies that the last epoch recorded."""
        self.entropies.start_epoch()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the training metrics every ``trainer.log_every_n_steps`` optimizer steps."""
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.metric_logging.log_training_if_due(self.trainer)
            self.metric_logging.show_loss(self.log)

    def on_train_epoch_end(self) -> None:
        """Log the training metrics of the last steps."""
        self.metric_logging.log_training(self.trainer)
        self.metric_logging.show_loss(self.log)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Add the stored entropies of a batch, on the host, where its block ids are known."""
        if self.trainer.training:
            return self.holdout_gains.attach(self.entropies.attach(batch, "train"))
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all evaluated splits, and their gap."""
        if not self.is_fitting:
            return super().on_validation_epoch_end()
        metrics = self.metrics.pop(self.data.evaluated)
        metrics |= self.averaging.evaluate(metrics)
        if self.trainer.sanity_checking:
            return self.metric_logging.log_initial_evaluation(self.trainer, metrics)
        self.metric_logging.log_evaluation(self.trainer, metrics)
        # For callbacks; the loggers have their row.
        self.log_dict(metrics, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that resuming, evaluating and exporting need."""
        # A callback may save a checkpoint before this module has logged the step.
        self.metric_logging.log_training_if_due(self.trainer)
        checkpoint |= {
            **self.metric_logging.state_dict(self.trainer),
            **self.optimization.state_dict(self),
            **self.averaging.state_dict(self.metric_logging.last_evaluation),
            **self.penalties.state_dict(),
            "entropies": self.entropies.state_dict(),
            "holdout_gains": self.holdout_gains.state_dict(),
            "trained_on": self.data.fingerprint("train"),
            "lm": asdict(self.lm),
            "hf_config": self.causal_lm.config_entries,
            "provenance": self.provenance(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the run; to evaluate, only the state of its entropies."""
        weights = self.state_dict(keep_vars=True)
        check_checkpoint(checkpoint, self.trainer, self.data, self.seed, weights, self.lm)
        super().on_load_checkpoint(checkpoint)
        if self.is_fitting:
            self.averaging.load_state_dict(checkpoint)
            optim.check_same_optimizer(checkpoint, self)
            self.penalties.load_state_dict(checkpoint)
            self.metric_logging.load_state_dict(checkpoint, self.trainer)
            self.__dict__.pop("total_steps", None)
        self.holdout_gains.load_state_dict(checkpoint.get("holdout_gains", {}))

    def provenance(self) -> dict[str, Any]:
        """Return how the model is being trained, as plain values."""
        settings = self.regularizers, self.optimization, self.seed
        results = self.metric_logging.last_evaluation, self.average
        return provenance(self.trainer, self.data, *settings, *results)
