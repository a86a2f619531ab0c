"""The average of a run's weights: attached to its optimizer, evaluated, saved and restored."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache, cached_property, partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.runs.checkpoints.averages import AVERAGE
from lit_entrodrop.runs.criterion import Criterion
from lit_entrodrop.runs.metric_name import of_average
from lit_entrodrop.training.averaging.evaluation import evaluate
from lit_entrodrop.training.averaging.settings import Average, check_same_average
from lit_entrodrop.training.averaging.teacher import Teacher
from lit_entrodrop.training.averaging.weight_average import WeightAverage
from lit_entrodrop.training.callbacks.checkpoints import Checkpoints
from lit_entrodrop.training.evaluation_module import EvaluationModule
from lit_entrodrop.training.optim import is_of_bitsandbytes, switches_weights
from regularizers import Outputs, Requirements


class Averaging:
    """The average of a run's weights, as `model.average` or a regularizer with a teacher need it.

    Args:
        settings: Settings of the average that is evaluated; None for none.
        teacher_decay: Decay of the average that teaches the model; None for none.
        metrics: Accumulators for the metrics of the raw weights, whose settings are shared.
    """

    def __init__(
        self, settings: Average | None, teacher_decay: float | None, metrics: RunMetrics
    ) -> None:
        self.settings = settings
        self._teacher_decay = teacher_decay
        self._metrics = RunMetrics(metrics.buckets, metrics.probe)
        self._teacher: Teacher | None = None
        self._average: WeightAverage | None = None
        self._restored_count = 0.0
        self._module: EvaluationModule

    def attach(self, module: EvaluationModule, optimizer: Optimizer) -> None:
        """Let an optimizer update the average after its steps.

        Raises:
            ValueError: If the optimizer averages weights itself.
        """
        self._module = module
        settings, decay = self.settings, self._teacher_decay
        if settings is not None:
            check_optimizer_averages_nothing(optimizer)
            self._average = WeightAverage(
                module.causal_lm,
                optimizer,
                settings.coefficient,
                self._is_due,
                settings.stored_snapshots,
            )
        elif decay is not None:
            coefficient = 1 - decay
            self._average = WeightAverage(
                module.causal_lm, optimizer, lambda count: torch.full_like(count, coefficient)
            )
        if self._average is None:
            return
        check_optimizer_restores_averages(optimizer)
        self._average.count.fill_(self._restored_count)
        if decay is not None:
            self._teacher = Teacher(module.causal_lm, self._average)

    def teach(self, batch: Batch, required: Requirements) -> Callable[[], Outputs] | None:
        """Return a function that runs the teacher on a batch, once; None without a teacher."""
        return cache(partial(self._teacher, batch, required)) if self._teacher else None

    def evaluate(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of the averaged weights, from a second pass over the evaluated splits.

        Before the first snapshot, the average equals the raw weights, and so do its metrics.

        Args:
            metrics: Metrics of the raw weights.
        """
        if self.settings is None:
            return {}
        assert self._average is not None, "the optimizer is configured by now"
        if self._module.trainer.sanity_checking or not self._average.count:
            renamed = {of_average(name): value for name, value in metrics.items()}
            return {name: value for name, value in renamed.items() if name is not None}
        with self._average.in_place():
            found = evaluate(self._module, self._metrics)
        return {str(of_average(name)): value for name, value in found.items()}

    def state_dict(self, evaluation: Mapping[str, float]) -> dict[str, Any]:
        """Return the entries of a checkpoint.

        Args:
            evaluation: Metrics of the last evaluation, which decide which weights are better.
        """
        if self.settings is None:
            return {}
        assert self._average is not None, "the optimizer is configured by now"
        criterion = criterion_of(self._module.trainer)
        return {
            AVERAGE: {
                **asdict(self.settings),
                "count": float(self._average.count),
                "parameters": self._average.names(self._module),
                "best": criterion.better_weights(evaluation),
            }
        }

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the number of snapshots."""
        check_same_average(checkpoint, self.settings)
        if self.settings is not None:
            # Strategies that do not shard restore it before they make the optimizer.
            self._restored_count = checkpoint[AVERAGE]["count"]
            if self._average is not None:
                self._average.count.fill_(self._restored_count)

    @cached_property
    def _per_epoch(self) -> int:
        return self._module.data.steps_per_epoch()

    def _is_due(self) -> bool:
        assert self.settings is not None, "it is attached only with settings"
        step = self._module.trainer.global_step + 1
        return self.settings.is_due(step, self._module.total_steps, self._per_epoch)


def criterion_of(trainer: L.Trainer) -> Criterion:
    """Return the criterion of a run with averaged weights; without checkpoints, the default."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = (each.criterion for each in callbacks if isinstance(each, Checkpoints))
    return next(found, Criterion(averaged=True))


def check_optimizer_averages_nothing(optimizer: Optimizer) -> None:
    """Refuse the average of an optimizer that already evaluates one, such as a schedule-free one.

    >>> check_optimizer_averages_nothing(torch.optim.SGD([torch.zeros(1)]))
    """
    if switches_weights(optimizer):
        raise ValueError(
            "model.average: expected null, because the weights that "
            f"{type(optimizer).__name__} evaluates and saves are an average already, got another "
            "average: remove model.average, or choose another model.optimizer"
        )


def check_optimizer_restores_averages(optimizer: Optimizer) -> None:
    """Refuse the average of an optimizer that rounds fp32 state to the dtype of its weights.

    >>> check_optimizer_restores_averages(torch.optim.SGD([torch.zeros(1)]))
    """
    dtypes = {each.dtype for group in optimizer.param_groups for each in group["params"]}
    if is_of_bitsandbytes(optimizer) and dtypes != {torch.float32}:
        raise ValueError(
            "model.lm.dtype: expected float32 for an average of the weights, which "
            f"{type(optimizer).__name__} of bitsandbytes rounds when a run is resumed, got "
            f"{', '.join(sorted(str(each).removeprefix('torch.') for each in dtypes))}: set "
            "float32, or choose another model.optimizer"
        )
