"""Build the model that a config describes."""

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from lit_entrodrop.model.adapters.lora import add_lora
from lit_entrodrop.model.adapters.quantization import (
    prepare_quantized,
    save_trained_weights_only,
)
from lit_entrodrop.model.added_tokens import embedding_rows, extend_embeddings, read_tokens
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.config_values import override_config, require_usable
from lit_entrodrop.model.dropout import set_dropout
from lit_entrodrop.model.loading import load_config, load_tokenizer, load_weights
from lit_entrodrop.model.transformers_compat import checkpoint_activations, reason_of
from lit_entrodrop.runtime.spelling import did_you_mean


def build_causal_lm(config: LMConfig) -> CausalLM:
    """Build a causal LM in train mode, with pretrained or random weights.

    Raises:
        ValueError: If the model cannot be loaded or built.
    """
    hf_config = build_hf_config(config)
    hf_model = _pretrained_or_random(config, hf_config)
    if config.quantize is None:
        return prepare_causal_lm(hf_model, config)
    prepare_quantized(hf_model)
    causal_lm = prepare_causal_lm(hf_model, config)
    save_trained_weights_only(causal_lm)
    return causal_lm


def load_dequantized(config: LMConfig) -> PreTrainedModel:
    """Load the base model of a quantized run with dequantized weights.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    hf_model: PreTrainedModel = _pretrained_or_random(config, build_hf_config(config))
    return hf_model.dequantize(getattr(torch, config.dtype))  # type: ignore[no-any-return]


def build_on_meta(config: LMConfig, hf_config: PretrainedConfig | None = None) -> CausalLM:
    """Build a causal LM in train mode on the meta device, without weights.

    Args:
        config: Config of the model.
        hf_config: Transformers configuration, if it is already loaded.

    Raises:
        ValueError: If the model cannot be built.
    """
    hf_config = hf_config or build_hf_config(config)
    with torch.device("meta"):
        return prepare_causal_lm(_random_weights(config, hf_config), config)


def build_hf_config(config: LMConfig) -> PretrainedConfig:
    """Return the Transformers configuration of the model, including overrides.

    Raises:
        ValueError: If the configuration cannot be loaded, an entry is unknown, or a value is bad.
    """
    if config.pretrained is not None:
        hf_config = load_config(config.pretrained)
    else:
        hf_config = _own_config(config)
    override_config(hf_config, config.config_overrides)
    require_usable(hf_config)
    return hf_config


def _own_config(config: LMConfig) -> PretrainedConfig:
    assert config.architecture is not None, "LMConfig requires one of them"
    if "model_type" not in config.architecture:
        raise ValueError(
            "lm.architecture: expected an entry model_type (e.g. llama), "
            f"got {sorted(config.architecture)}"
        )
    entries = dict(config.architecture)
    kind = entries.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"lm.architecture.model_type: expected a model type of Transformers, got {kind}: "
            f"{did_you_mean(str(kind), CONFIG_MAPPING.keys(), 'write for example llama')}"
        )
    # Transformers ignores a misspelled entry silently and uses the default.
    override_config(AutoConfig.for_model(kind), entries, "lm.architecture")
    try:
        hf_config: PretrainedConfig = AutoConfig.for_model(kind, **entries)
    except Exception as error:  # Transformers checks sizes against each other in its own ways
        reason = str(error.__cause__ or error).rstrip(".")
        raise ValueError(
            f"lm.architecture: expected sizes that fit each other, but {kind} refuses: {reason}: "
            "correct them"
        ) from error
    return hf_config


def prepare_causal_lm(hf_model: PreTrainedModel, config: LMConfig) -> CausalLM:
    """Add tokens, dropout, adapters, activation checkpointing, compilation and the head."""
    if config.add_tokens:
        tokens = read_tokens(config.add_tokens)
        extend_embeddings(hf_model, load_tokenizer(config.tokenizer_source), tokens)
    if config.dropout is not None:
        set_dropout(hf_model, transformer_blocks(hf_model), config.dropout)
    if config.lora is not None:
        hf_model = add_lora(hf_model, config.lora)
        if config.add_tokens:
            for rows in embedding_rows(hf_model):
                rows.requires_grad_(True)
    if config.activation_checkpointing:
        checkpoint_activations(hf_model)
    causal_lm = CausalLM(hf_model, config.head, config.head_chunk_size)
    # The check of the head would compile graphs for its own shape, so compile after it.
    if config.compile:
        for block in transformer_blocks(causal_lm):
            # All batches have one shape except the last of an epoch: two static graphs are faster
            # than one dynamic graph.
            block.compile(dynamic=False)
    # Transformers loads models in eval mode, in which regularizers and dropout have no effect.
    return causal_lm.train()


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of a model: its longest list of modules of one class.

    >>> stack = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    >>> len(transformer_blocks(nn.ModuleDict({"layers": stack})))
    2
    """
    lists = [
        list(module)
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len({type(item) for item in module}) == 1
    ]
    return max(lists, key=len, default=[])


def _pretrained_or_random(config: LMConfig, hf_config: PretrainedConfig) -> PreTrainedModel:
    if config.pretrained is None:
        return _random_weights(config, hf_config)
    dtype = getattr(torch, config.dtype)
    return load_weights(config.pretrained, hf_config, dtype, config.attention, config.quantize)


def _random_weights(config: LMConfig, hf_config: PretrainedConfig) -> PreTrainedModel:
    try:
        hf_model: PreTrainedModel = AutoModelForCausalLM.from_config(
            hf_config,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attention,
            trust_remote_code=False,
        )
    except Exception as error:  # sizes that do not fit each other can fail anywhere in a model
        name = "lm.architecture" if config.pretrained is None else "lm.pretrained"
        reason = reason_of(error, hf_config.model_type)
        raise ValueError(f"{name}: cannot build the model: {reason}") from error
    return hf_model
