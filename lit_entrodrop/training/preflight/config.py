"""Checks of a run's settings, before its model is built."""

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.loading._weighted_order import WeightedOrder
from lit_entrodrop.data.mixing import Replay
from lit_entrodrop.data.orders import BlockOrder
from lit_entrodrop.runs.metric_name import of_average
from lit_entrodrop.runtime.steps import total_steps
from lit_entrodrop.training.averaging.settings import Average
from lit_entrodrop.training.callbacks.task_scores import TaskScores
from lit_entrodrop.training.evaluation_module import EvaluationModule
from lit_entrodrop.training.monitored import check_monitored_names
from lit_entrodrop.training.optim import check_can_step, switches_weights
from lit_entrodrop.training.preflight.optimizer import check_suits
from lit_entrodrop.training.strategies import check_strategy, hooks_of
from regularizers import Regularizers, Requirements
from regularizers.merging import follows_evaluations

STEPS_PER_AVERAGE = 5  # length of a run, in time constants of a teacher, below which it lags


def check_config(module: EvaluationModule, average: Average | None = None) -> None:
    """Check that the trainer, data, regularizers and optimizer of a run fit together.

    Raises:
        ValueError: If two settings exclude each other; the message names one and the remedy.
    """
    trainer, data, regularizers = module.trainer, module.data, module.regularizers
    required = regularizers.requirements
    regularizers.check(module.vocabulary)
    check_holdout(data, required)
    check_order(data.mixture.order, required)
    check_replay(data.replay, required)
    schedule = module.optimization.weight_decay_schedule
    by_evaluations = schedule is not None and follows_evaluations(schedule)
    check_evaluations(trainer, data, required.evaluations or by_evaluations)
    if trainer.state.fn == TrainerFn.FITTING:
        check_trainer(trainer, required, average)
        optimizer = check_can_step(module.optimization.make)
        check_suits(optimizer, trainer, module.optimization.lr_schedule)
        check_penalties(trainer, regularizers, optimizer)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        tasks = [each.metric_name for each in callbacks if isinstance(each, TaskScores)]
        others = [*data.mixture.validation_metrics, *tasks]
        names = [*module.metrics.names(data.evaluated), *others]
        averaged = filter(None, map(of_average, names)) if average else ()
        check_monitored_names(trainer, [*names, *averaged])
        per_epoch = data.steps_per_epoch()
        steps = total_steps(per_epoch, trainer.max_epochs, trainer.max_steps)
        warn_of_few_steps(required, steps, per_epoch)
        if average is not None:
            check_average(average, required.teacher, steps, per_epoch)


def check_holdout(data: TextDataModule, required: Requirements) -> None:
    """Refuse data without the holdout text that a regularizer needs."""
    if required.holdout_neighbors is not None and not data.num_blocks("holdout"):
        raise ValueError(
            "data.holdout: expected holdout text, which a regularizer compares training text with, "
            "got none: set data.holdout to a share of the corpus such as 0.1, or to a corpus of "
            "its own"
        )


def check_order(order: BlockOrder, required: Requirements) -> None:
    """Refuse an order that repeats blocks within an epoch if entropies come from the last epoch."""
    if order.repeats_blocks and required.entropy == "last_epoch":
        raise ValueError(
            "data.order: expected an order that reads each block once per epoch, because a "
            f"regularizer uses the entropies of the last epoch, got {type(order).__name__}: set "
            "the regularizer's entropy_source to reference or online, or remove "
            f"{'the weights of data.corpus' if isinstance(order, WeightedOrder) else 'data.order'}"
        )


def check_replay(replay: Replay | None, required: Requirements) -> None:
    """Refuse regularized replay if a regularizer needs what is stored for training text alone."""
    if replay is None or not replay.regularize:
        return
    if required.entropy in ("last_epoch", "reference"):
        raise ValueError(
            "data.replay.regularize: expected a regularizer with entropy_source online, because "
            f"entropies of replay are not stored, got {required.entropy}: set it to online, or "
            "data.replay.regularize to false"
        )
    if required.holdout_neighbors is not None:
        raise ValueError(
            "data.replay.regularize: expected false, because a regularizer weights the training "
            "text by its similarity to data.holdout, got true: set it to false"
        )


def check_evaluations(trainer: L.Trainer, data: TextDataModule, required: bool) -> None:
    """Refuse a run without validation if a regularizer or a curriculum follows it."""
    limit: float = trainer.limit_val_batches
    if required and not ("validation" in data.evaluated and limit):
        raise ValueError(
            "regularizers: expected validation, which a regularizer or a curriculum follows, got "
            "none: set data.validation to a share such as 0.1, and trainer.limit_val_batches to 1.0"
        )


def check_callbacks(trainer: L.Trainer) -> None:
    """Refuse Lightning's callbacks that average weights, which do not shard averages."""
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, StochasticWeightAveraging | WeightAveraging):
            raise ValueError(
                "trainer.callbacks: expected no average of weights, got "
                f"{type(each).__name__}, whose averages are not sharded: remove it, and set "
                "model.average, for example by configs/model/average.yaml"
            )


def check_average(average: Average, teacher: float | None, steps: int, per_epoch: int) -> None:
    """Refuse an average of too few snapshots, or one that differs from that of a teacher."""
    taken = sum(average.is_due(step, steps, per_epoch) for step in range(1, steps + 1))
    if taken < 2:
        raise ValueError(
            f"model.average: expected at least two snapshots in {steps} steps, got {taken}: lower "
            "start or every, or train longer"
        )
    if average.window is not None and average.window > taken:
        raise ValueError(
            f"model.average.window: expected at most the {taken} snapshots of this run, for which "
            f"memory is reserved, got {average.window}: lower window or every, or train longer"
        )
    same = average.kind == "ema" and average.interval(per_epoch) == 1
    if teacher is not None and not (
        same and average.highest_decay == teacher and average.first_step(steps) <= 1
    ):
        raise ValueError(
            f"model.average: expected kind ema with decay {teacher}, start 0 and every 1, because "
            "the teacher of a regularizer is the same average, got "
            f"{average}: set these, or the decay of the regularizer"
        )


def check_trainer(
    trainer: L.Trainer, required: Requirements, average: Average | None = None
) -> None:
    """Refuse settings of the trainer under which the loss or a teacher would be wrong."""
    if trainer.precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"trainer.precision: expected 32-true or a mixed precision, got {trainer.precision}, "
            "in which sums over tokens lose digits: set model.lm.dtype to bfloat16 instead"
        )
    overfit_batches: float = trainer.overfit_batches  # type: ignore[attr-defined]
    if overfit_batches:
        raise ValueError(
            "trainer.overfit_batches: expected 0, because data.order decides the order of blocks, "
            f"got {overfit_batches}: set data.max_train_tokens or trainer.limit_train_batches"
        )
    for user, is_used in (
        ("a regularizer that compares with the moving average", required.teacher is not None),
        ("model.average, the average", average is not None),
    ):
        if is_used and not hooks_of(trainer.strategy).steps_parameters:
            raise ValueError(
                f"trainer.strategy: expected auto, ddp or fsdp2 for {user} of the weights, got "
                f"{type(trainer.strategy).__name__}, whose optimizer does not step the parameters "
                "themselves: add configs/strategy/fsdp2.yaml"
            )
    if average is not None and not getattr(trainer.strategy, "save_distributed_checkpoint", True):
        raise ValueError(
            "trainer.strategy.save_distributed_checkpoint: expected true with model.average, got "
            "false, which renumbers the averages: remove it; `export` writes one file"
        )
    strategy = type(trainer.strategy)
    check_strategy(f"{strategy.__module__}.{strategy.__qualname__}")


def check_penalties(
    trainer: L.Trainer, regularizers: Regularizers, optimizer: torch.optim.Optimizer
) -> None:
    """Refuse penalties on parameters, and teachers, that do not suit strategy or optimizer."""
    decoupled = [type(each).__name__ for each in regularizers.ordered if each.decoupled]
    if decoupled and switches_weights(optimizer):
        raise ValueError(
            f"regularizers: expected {decoupled[0]} with decoupled false for "
            f"{type(optimizer).__name__}, which evaluates other weights than it trains, got true: "
            "set it to false"
        )
    if regularizers.requirements.teacher is not None and switches_weights(optimizer):
        raise ValueError(
            "model.optimizer: expected one that evaluates the weights that it trains, for a "
            "regularizer that compares with the moving average of the weights, got "
            f"{type(optimizer).__name__}: choose another, such as "
            "lit_entrodrop.training.optim.AdamW"
        )
    if regularizers.penalizes_parameters and not hooks_of(trainer.strategy).steps_parameters:
        raise ValueError(
            "trainer.strategy: expected auto, ddp or fsdp2 for a regularizer that penalizes "
            f"parameters, got {type(trainer.strategy).__name__}, which stores gradients in a form "
            "of its own: add configs/strategy/fsdp2.yaml"
        )


def warn_of_few_steps(required: Requirements, steps: int, per_epoch: int) -> None:
    """Warn if a run is too short for what its regularizers learn from earlier steps."""
    if required.entropy == "last_epoch" and steps <= per_epoch:
        rank_zero_warn(
            "regularizers: entropies come from the last epoch, and this run has one epoch, in "
            "which none is known: no token will be dropped; set entropy_source to reference or "
            "online, or train longer"
        )
    if required.teacher is not None and steps * (1 - required.teacher) < STEPS_PER_AVERAGE:
        rank_zero_warn(
            f"regularizers: the teacher averages the weights of about "
            f"{1 / (1 - required.teacher):.0f} steps, and this run has {steps}: the teacher "
            "stays close to the initial model, and a bound by its loss holds the model back, at a "
            "lower decay too; set a warmup of the curriculum or a larger epsilon, or train longer"
        )
