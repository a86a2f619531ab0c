"""Refuse, before training, what cannot work together."""

import math
import re
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.orders import BlockOrder
from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.probing import (
    attends_to_future_tokens,
    embedding_rows,
    has_dropout,
    leaks_between_documents,
)
from lit_entrodrop.training.strategies import DeepSpeedStrategy, FSDPStrategy
from lit_entrodrop.training.strategies.names import STRATEGIES
from regularizers import Requirements

LIGHTNINGS_OWN = re.compile(
    r"deepspeed(_stage_.+)?|fsdp_cpu_offload"
    r"|(pytorch_)?lightning\..*(FSDP|DeepSpeed|ModelParallel)Strategy"
)

NOTHING_KNOWN = (
    "regularizers: entropies are those of the last epoch, and this run has one epoch, in which "
    "none is known: nothing will be dropped; set entropy_source to reference or online, or train "
    "longer"
)


def check_model_fits_data(
    causal_lm: CausalLM, tokenizer: PreTrainedTokenizerBase, data: TextDataModule
) -> None:
    """Refuse a model that cannot hold the blocks, the words, or the packing of the data.

    Raises:
        ValueError: saying what does not fit and what to do.
    """
    config = causal_lm.unwrapped.config
    context = getattr(config, "max_position_embeddings", None) or math.inf
    if data.block_size > context:
        raise ValueError(
            f"data.block_size: expected at most the context of {config.model_type}, {context} "
            f"tokens, got {data.block_size}: lower data.block_size"
        )
    rows = embedding_rows(causal_lm.unwrapped)
    if len(tokenizer) > rows:
        raise ValueError(
            f"tokenizer: expected at most the {rows} words that the model embeds, got "
            f"{len(tokenizer)}: take the tokenizer that belongs to the model"
        )
    if _on_meta(causal_lm):
        return
    if attends_to_future_tokens(causal_lm.unwrapped):
        raise ValueError(
            f"lm: expected a causal LM, but the predictions of {config.model_type} depend on later "
            "tokens: choose another model"
        )
    if data.packing and leaks_between_documents(causal_lm.unwrapped):
        raise ValueError(
            f"data.packing: {config.model_type} with attention "
            f"{config._attn_implementation!r} lets packed documents see each other: set "
            "data.packing to false"
        )


def check_provides(causal_lm: CausalLM, required: Requirements) -> None:
    """Refuse a model that lacks what a regularizer works by, or that no average can follow.

    Args:
        causal_lm: the model that is trained.
        required: by the regularizers.

    Raises:
        ValueError: naming the setting and what to set instead.
    """
    trained = {each.dtype for each in causal_lm.parameters() if each.requires_grad}
    if required.teacher is not None and (half := trained & {torch.float16, torch.bfloat16}):
        raise ValueError(
            "model.lm.dtype: expected float32 for a regularizer that compares with the moving "
            f"average of the weights, got {half.pop()}, in which small steps of an average are "
            "lost: set float32, and trainer.precision to bf16-mixed"
        )
    if required.dropout and not _on_meta(causal_lm) and not has_dropout(causal_lm.unwrapped):
        raise ValueError(
            "model.lm: expected a model with dropout for a regularizer that compares two passes "
            f"over the same tokens, got {causal_lm.unwrapped.config.model_type} without, whose "
            "passes are equal: set model.lm.dropout, model.lm.lora.dropout or such an entry of "
            "model.lm.config_overrides as {attention_dropout: 0.1}"
        )


def check_same_words(causal_lm: CausalLM, reference: CausalLM) -> None:
    """Refuse a reference model whose predictions are of another number of words.

    Args:
        causal_lm: the model that is trained.
        reference: the frozen one.

    Raises:
        ValueError: telling both numbers.
    """
    configs = (each.unwrapped.config.get_text_config() for each in (causal_lm, reference))
    words, others = (config.vocab_size for config in configs)
    if words != others:
        raise ValueError(
            "model.reference: expected a model that predicts as many words, as a regularizer "
            f"compares all predictions, got {others} beside {words}, padding included: name "
            "another"
        )


def check_order(order: BlockOrder, requirements: Requirements) -> None:
    """Refuse an order of blocks with regularizers that it would mislead.

    Raises:
        ValueError: saying what does not fit and what to do.
    """
    if order.repeats_blocks and requirements.entropy == "last_epoch":
        raise ValueError(
            "data.order: expected an order that reads each block once an epoch, as a regularizer "
            f"takes the entropies of the last epoch, got {type(order).__name__}, at whose second "
            "reading of a block they would be those of this epoch: set the regularizer's "
            "entropy_source to reference or online, or leave data.order out"
        )


def check_evaluations(trainer: L.Trainer, data: TextDataModule, required: Requirements) -> None:
    """Refuse a run without validation where a regularizer or its curriculum follows it.

    Raises:
        ValueError: saying what to set.
    """
    limit: float = trainer.limit_val_batches
    if required.evaluations and not (data.evaluated and limit):
        raise ValueError(
            "regularizers: expected validation, which one of them or its curriculum follows, got "
            "none: set data.validation to a share such as 0.1, and trainer.limit_val_batches to 1.0"
        )


def warn_of_too_few_steps(required: Requirements, steps: int, steps_per_epoch: float) -> None:
    """Warn where a run is too short for what its regularizers take from its past.

    Args:
        required: by the regularizers.
        steps: optimizer steps of the whole run.
        steps_per_epoch: of one epoch.
    """
    if required.entropy == "last_epoch" and steps <= steps_per_epoch:
        rank_zero_warn(NOTHING_KNOWN)
    if required.teacher is not None and steps * (1 - required.teacher) < 5:
        rank_zero_warn(
            f"regularizers: the teacher averages the weights of about "
            f"{1 / (1 - required.teacher):.0f} steps, and this run has {steps}: it stays behind, "
            f"and so may the model; set decay to {max(0.0, 1 - 10 / steps):.2g}, or train longer"
        )


def check_trainer(trainer: L.Trainer, required: Requirements = NO_REQUIREMENTS) -> None:
    """Refuse what would make the loss wrong, or is not held by tests.

    Args:
        trainer: of the run.
        required: by the regularizers.

    Raises:
        ValueError: naming the setting and what to set instead.
    """
    if trainer.precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"trainer.precision: expected 32-true or a mixed precision, got {trainer.precision}, "
            "in which sums over tokens lose their digits: set model.lm.dtype to bfloat16 instead"
        )
    overfit_batches: float = trainer.overfit_batches  # type: ignore[attr-defined]
    if overfit_batches:
        raise ValueError(
            "trainer.overfit_batches: expected 0, as the order of blocks is ours, got "
            f"{overfit_batches}: set data.max_train_tokens or trainer.limit_train_batches"
        )
    if required.teacher is not None and isinstance(
        trainer.strategy, DeepSpeedStrategy | FSDPStrategy
    ):
        raise ValueError(
            "trainer.strategy: expected auto, ddp or fsdp2 for a regularizer that compares with "
            "the moving average of the weights, got "
            f"{type(trainer.strategy).__name__}, whose optimizer holds them in another form: add "
            "configs/strategy/fsdp2.yaml"
        )
    strategy = type(trainer.strategy)
    check_strategy(f"{strategy.__module__}.{strategy.__qualname__}")


def check_strategy(name: str) -> None:
    """Refuse a sharding strategy of Lightning in place of which we have one.

    Args:
        name: of the strategy in Lightning's registry, or the full name of its class.

    Raises:
        ValueError: naming ours.

    >>> check_strategy("fsdp2")
    """
    if LIGHTNINGS_OWN.fullmatch(name):
        raise ValueError(
            f"trainer.strategy: expected auto, {', '.join(STRATEGIES)}, got {name}, under which "
            "the loss would not be divided by all tokens of a step: add one of configs/strategy"
        )


class Position(NamedTuple):
    """Where a run stands: optimizer steps and epochs done, and batches of the epoch under way."""

    steps: int = 0
    epochs: int = 0
    batches: int = 0

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "Position":
        """Return where a checkpoint stands."""
        loops = checkpoint["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]
        within = epochs["started"] > epochs["processed"]
        batches = loops["epoch_loop.batch_progress"]["current"]["ready"]
        return cls(checkpoint["global_step"], epochs["processed"], batches if within else 0)


def total_steps(
    trainer: L.Trainer,
    data: TextDataModule,
    start: Position = Position(),  # noqa: B008
) -> int:
    """Return the optimizer steps of a run, which curricula and learning rate share out.

    Lightning's own estimate would drop the restored position of the data loader (issue 20550).

    Args:
        trainer: how long, and how many micro-batches make a step.
        data: how many batches make an epoch.
        start: where the run was resumed; its steps may have been of another size.

    Raises:
        ValueError: if neither epochs nor steps are bounded.
    """
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs == 0 or (epochs in (None, -1) and steps < 1):
        raise ValueError(
            "trainer: expected max_epochs >= 1 or max_steps >= 1, so that curricula have an end, "
            f"got max_epochs={epochs}, max_steps={steps}"
        )
    batches, limit = data.batches_per_epoch(), trainer.limit_train_batches
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    each = trainer.accumulate_grad_batches
    per_epoch = math.ceil(batches / each)
    otherwise = start.epochs * per_epoch + start.batches // each
    bounds = [steps] if steps > 0 else []
    if epochs not in (None, -1):
        bounds.append(max(epochs * per_epoch + start.steps - otherwise, start.steps, 1))
    return min(bounds)


def _on_meta(causal_lm: CausalLM) -> bool:
    return any(parameter.is_meta for parameter in causal_lm.parameters())
