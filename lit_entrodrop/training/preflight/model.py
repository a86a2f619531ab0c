"""Checks of a model, once it is built and before it is sharded."""

import math

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.adapters.settings import LoRAConfig
from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.probing import (
    attends_to_future_tokens,
    embedding_rows,
    has_dropout,
    leaks_between_documents,
)
from lit_entrodrop.model.transformers_compat import attention_implementation
from regularizers import Requirements


def check_model(
    causal_lm: CausalLM,
    tokenizer: PreTrainedTokenizerBase,
    data: TextDataModule,
    required: Requirements = NO_REQUIREMENTS,
) -> None:
    """Check that a whole model fits its tokenizer, the data and the regularizers.

    Raises:
        ValueError: If the model does not fit; the message names the setting and the remedy.
    """
    _check_sizes(causal_lm, tokenizer, data)
    trained = {each.dtype for each in causal_lm.parameters() if each.requires_grad}
    if required.teacher is not None and (half := trained & {torch.float16, torch.bfloat16}):
        raise ValueError(
            "model.lm.dtype: expected float32 for a regularizer that compares with the moving "
            f"average of the weights, got {half.pop()}, in which the small steps of an average are "
            "lost: set float32, and trainer.precision to bf16-mixed"
        )
    if required.initial_weights and hasattr(causal_lm.hf_model, "peft_config"):
        raise ValueError(
            "model.lm.lora: expected null for a regularizer that pulls the weights towards their "
            "initial values, got adapters, whose product is 0 before training, so that weight "
            "decay does the same: set model.optimizer.init_args.weight_decay in its place"
        )
    if any(parameter.is_meta for parameter in causal_lm.parameters()):
        return
    _check_attention(causal_lm, data)
    if required.dropout and not has_dropout(causal_lm.unwrapped):
        raise ValueError(
            "model.lm: expected a model with dropout for a regularizer that compares two passes "
            f"over the same tokens, got {causal_lm.unwrapped.config.model_type} without, whose "
            "passes are equal: set model.lm.dropout, model.lm.lora.dropout or an entry of "
            "model.lm.config_overrides such as {attention_dropout: 0.1}"
        )


def check_trainable(lm: LMConfig) -> None:
    """Refuse to train a model of 4-bit weights without adapters."""
    if lm.quantize is not None and lm.lora is None:
        raise ValueError(
            "model.lm.lora: expected adapters with lm.quantize, because 4-bit weights cannot be "
            "trained, got null: add configs/model/qlora.yaml"
        )


def check_same_function(saved: LMConfig, lm: LMConfig) -> None:
    """Refuse other settings than those of a checkpoint under which its weights mean another model.

    Raises:
        ValueError: If scales of adapters, or 4-bit weights around them, differ.
    """
    adapters = [each.lora or LoRAConfig() for each in (saved, lm)]
    pairs = {
        **{f"lora.{name}": [getattr(e, name) for e in adapters] for name in ("alpha", "rslora")},
        "quantize": [saved.quantize, lm.quantize],
    }
    for name, (expected, given) in pairs.items():
        if expected != given:
            raise ValueError(
                f"model.lm.{name}: expected {expected}, with which the adapters of the checkpoint "
                f"were trained, got {given}: set it as it was, or start a new run from the "
                "exported model"
            )


def check_context(config: PretrainedConfig, block_size: int) -> None:
    """Refuse blocks that are longer than the context of a model, if that is bounded."""
    context = getattr(config, "max_position_embeddings", None) or math.inf
    if block_size > context:
        raise ValueError(
            f"data.block_size: expected at most the context of {config.model_type}, {context} "
            f"tokens, got {block_size}: lower data.block_size"
        )


def check_reference(causal_lm: CausalLM, reference: CausalLM) -> None:
    """Refuse a reference model of another vocabulary size than the trained model."""
    configs = (each.unwrapped.config.get_text_config() for each in (causal_lm, reference))
    expected, given = (config.vocab_size for config in configs)
    if expected != given:
        raise ValueError(
            f"model.reference: expected the same vocabulary size as the trained model, {expected}, "
            f"padding included, got {given}: a regularizer compares all predictions; name another "
            "model"
        )


def _check_sizes(
    causal_lm: CausalLM, tokenizer: PreTrainedTokenizerBase, data: TextDataModule
) -> None:
    check_context(causal_lm.unwrapped.config, data.block_size)
    rows = embedding_rows(causal_lm.unwrapped)
    if len(tokenizer) > rows:
        raise ValueError(
            f"tokenizer: expected at most {rows} tokens, the vocabulary size of the model, got "
            f"{len(tokenizer)}: use the tokenizer that belongs to the model"
        )


def _check_attention(causal_lm: CausalLM, data: TextDataModule) -> None:
    config = causal_lm.unwrapped.config
    if attends_to_future_tokens(causal_lm.unwrapped):
        raise ValueError(
            f"lm: expected a causal LM, but the predictions of {config.model_type} depend on later "
            "tokens: choose another model"
        )
    if data.packing and leaks_between_documents(causal_lm.unwrapped):
        raise ValueError(
            f"data.packing: {config.model_type} with attention "
            f"{attention_implementation(config)!r} lets packed documents see each other: set "
            "data.packing to false"
        )
