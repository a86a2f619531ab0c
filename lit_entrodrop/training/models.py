"""The models of a run: the one that is trained, and the frozen one that it is compared with."""

import lightning as L
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.config import LMConfig, frozen_config
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.training.checks import check_model_fits_data, check_provides
from lit_entrodrop.training.strategies import DeepSpeedStrategy, FSDP2Strategy, FSDPStrategy
from regularizers import Requirements


def build_for(
    trainer: L.Trainer,
    data: TextDataModule,
    lm: LMConfig,
    tokenizer: PreTrainedTokenizerBase,
    required: Requirements = NO_REQUIREMENTS,
) -> CausalLM:
    """Build a model as the strategy of a run holds it.

    Args:
        trainer: whose processes have been set up.
        data: what the model must be able to take.
        lm: of the model.
        tokenizer: its own.
        required: of the model, by the regularizers.

    Returns:
        The model, of which each rank holds its shard if the strategy shards.

    Raises:
        ValueError: if the model cannot be had, takes neither the data nor the device, or lacks
            what is required.
    """

    def build_whole() -> CausalLM:
        causal_lm = build_causal_lm(lm)
        causal_lm.require_head(trainer.strategy.root_device)
        check_model_fits_data(causal_lm, tokenizer, data)
        check_provides(causal_lm, required)
        return causal_lm

    if isinstance(trainer.strategy, FSDP2Strategy | FSDPStrategy | DeepSpeedStrategy):
        return trainer.strategy.build(lm, build_whole)
    return build_whole()


def build_frozen_for(
    trainer: L.Trainer,
    data: TextDataModule,
    lm: LMConfig,
    reference: str | None,
    tokenizer: PreTrainedTokenizerBase,
) -> CausalLM:
    """Build the frozen reference model of a run, held like the model that is trained.

    Args:
        trainer: whose processes have been set up.
        data: what the model must be able to take.
        lm: of the model that is trained.
        reference: name of the frozen one; None for the initial weights.
        tokenizer: of the model that is trained.

    Raises:
        ValueError: if it cannot be had, or reads other words.
    """
    trained = lm.tokenizer_source
    lm = frozen_config(lm, reference)
    if lm.pretrained is None:
        raise ValueError(
            "model.reference: expected a pretrained model, as lm.pretrained is null and random "
            "weights cannot be had again: name one"
        )
    own_tokenizer = tokenizer if reference is None else _own_tokenizer(reference, tokenizer)
    if own_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"model.reference: expected a model with the vocabulary of {trained}, got {reference}, "
            "whose words differ: name another"
        )
    model = build_for(trainer, data, lm, own_tokenizer).requires_grad_(False).eval()
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        trainer.strategy.prepare_frozen(model)
    # A shard is where it belongs.
    sharded = isinstance(trainer.strategy, FSDP2Strategy)
    return model if sharded else model.to(trainer.strategy.root_device)


def _own_tokenizer(reference: str, otherwise: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer that lies with a model, or another one if none does."""
    try:
        return load_tokenizer(reference)
    except ValueError:
        return otherwise
