"""Settings of a Trainer under which regularizers would do something else, or nothing."""

from collections.abc import Iterator, Sized
from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from transformers import PreTrainedModel

from regularizers.compose import Regularizers
from regularizers.neftune import NEFTune


def check_trainer(trainer: Any, regularizers: Regularizers, reference: nn.Module | None) -> None:
    """Reject what cannot work, before training.

    Args:
        trainer: A ``transformers.Trainer`` that was built.
        regularizers: Its regularizers.
        reference: Frozen reference model; None for none.

    Raises:
        ValueError: If settings contradict each other; the message has one line for each.
    """
    refusals = [
        *_of_loss(trainer, regularizers),
        *_of_hardware(trainer, regularizers),
        *_of_requirements(trainer, regularizers, reference),
    ]
    if refusals:
        raise ValueError("regularizers: " + "\nregularizers: ".join(refusals))


def _of_loss(trainer: Any, regularizers: Regularizers) -> Iterator[str]:
    args, config = trainer.args, trainer.model.config
    if args.label_smoothing_factor:
        yield (
            f"expected label_smoothing_factor=0, got {args.label_smoothing_factor}: the Trainer's "
            "own loss is not computed; use regularizers.LabelSmoothing"
        )
    if trainer.compute_loss_func is not None:
        yield (
            "expected no compute_loss_func: the Trainer's own loss is not computed; write a "
            "regularizer with on_token_loss or on_loss"
        )
    if getattr(args, "loss_type", "nll") not in (None, "nll"):
        yield (
            f"expected loss_type='nll', got {args.loss_type!r}: the loss of the SFTTrainer is not "
            "computed; for DFT, use regularizers.GeneralizedCrossEntropy(q=1)"
        )
    if args.neftune_noise_alpha and any(isinstance(each, NEFTune) for each in regularizers):
        yield (
            f"expected one source of noise, got NEFTune and neftune_noise_alpha="
            f"{args.neftune_noise_alpha}: unset one of them"
        )
    if getattr(config, "is_encoder_decoder", False):
        yield f"expected a causal LM, got {config.model_type}, which has an encoder"


def _of_hardware(trainer: Any, regularizers: Regularizers) -> Iterator[str]:
    args, accelerator = trainer.args, trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        yield (
            "expected DDP or one device, got DeepSpeed, which steps before the weights of all "
            "micro-batches are known: use DDP, or lit-entrodrop with a DeepSpeed strategy"
        )
    if args.n_gpu > 1:
        yield (
            f"expected one process for each GPU, got one for {args.n_gpu}: launch with "
            "accelerate or torchrun, or set CUDA_VISIBLE_DEVICES to one GPU"
        )
    parallel = getattr(accelerator, "parallelism_config", None)
    for kind in ("tp", "cp", "sp"):
        if parallel is not None and getattr(parallel, f"{kind}_size", 1) > 1:
            yield (
                f"expected whole rows on each device, got {kind}_size="
                f"{getattr(parallel, f'{kind}_size')}: use data parallelism"
            )
    if args.torch_compile:
        yield (
            "expected torch_compile=False: compiled models skip hooks on embeddings silently; "
            "lit-entrodrop compiles under regularizers"
        )
    if regularizers.penalizes_parameters and (args.fp16 or accelerator.distributed_type == "FSDP"):
        yield (
            "expected whole parameters and unscaled gradients, because a regularizer penalizes "
            "parameters, got fp16 or FSDP: use bf16 and DDP"
        )


def _of_requirements(
    trainer: Any, regularizers: Regularizers, reference: nn.Module | None
) -> Iterator[str]:
    required = regularizers.requirements
    names = ", ".join(regularizers.names)
    if required.teacher is not None or required.holdout_neighbors is not None:
        yield (
            f"one of {names} needs "
            f"{'a teacher' if required.teacher is not None else 'holdout gains'}, which only "
            "`lit-entrodrop fit` provides"
        )
    frozen = required.reference or required.entropy == "reference"
    initial = hasattr(trainer.model, "disable_adapter") and not required.other_reference
    if frozen and reference is None and not initial:
        yield (
            f"one of {names} needs a frozen model: pass reference_model, such as a second copy of "
            "the pretrained model, or train adapters of peft, without which the model is its own"
        )
    dataset = trainer.train_dataset
    if required.token_counts and dataset is not None and not isinstance(dataset, Sized):
        yield (
            f"one of {names} counts the tokens of train_dataset before training: pass a dataset "
            "with a length, not a stream"
        )
    if required.dropout and not _has_dropout(trainer.model):
        yield (
            f"one of {names} needs dropout inside the model, got none: set attention_dropout or "
            "its like in the config of the model"
        )
    one_set = not isinstance(trainer.eval_dataset, dict)
    if required.evaluations and (trainer.args.eval_strategy == "no" or not one_set):
        yield (
            f"one of {names} follows the validation loss: set eval_strategy, and pass one "
            "eval_dataset rather than several"
        )
    if any(each.requires_grad for each in regularizers.parameters()):
        yield f"one of {names} has parameters of its own, which the Trainer does not optimize"


def _has_dropout(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config().to_dict()
    settings = (value for name, value in config.items() if "drop" in name)
    modules = (each.p for each in model.modules() if isinstance(each, nn.Dropout))
    return any(isinstance(each, float) and each > 0 for each in (*settings, *modules))
