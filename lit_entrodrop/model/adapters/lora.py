"""Adapters of peft around a model."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lit_entrodrop.model.adapters.settings import LoRAConfig
from lit_entrodrop.runtime.spelling import did_you_mean


def add_lora(hf_model: PreTrainedModel, lora: LoRAConfig) -> PreTrainedModel:
    """Wrap a model in adapters, and freeze its other weights.

    Raises:
        ValueError: If peft is not installed, or cannot adapt the model so.
    """
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lm.lora needs the package peft: pip install 'lit-entrodrop[peft]'")
    from peft import LoraConfig, get_peft_model

    _require_modules(hf_model, "modules_to_save", lora.modules_to_save or [])
    if not isinstance(lora.target_modules, str):
        _require_modules(hf_model, "target_modules", lora.target_modules)
    # peft's type has a placeholder for the number of iterations.
    init: Any = True if lora.init == "default" else lora.init
    tied = bool(hf_model.config.get_text_config().tie_word_embeddings)
    adapters = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=init,
        # Copied, because peft adds tied modules to the list.
        modules_to_save=copy(lora.modules_to_save),
        # Otherwise the trained copy of a tied embedding would leave the head behind.
        ensure_weight_tying=tied and bool(lora.modules_to_save),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(hf_model, adapters)  # type: ignore[return-value]
    except Exception as error:  # any kind, from anywhere in a model
        raise ValueError(
            f"lm.lora: expected settings that suit {hf_model.config.model_type}, but peft refuses: "
            f"{str(error).rstrip('.')}: correct target_modules, modules_to_save or init"
        ) from error


def merge_lora(hf_model: PreTrainedModel) -> PreTrainedModel:
    """Add the adapters of a model to its weights, and return it without peft around it.

    Of a tied embedding and head, an adapter changes only one, so they are untied.
    """
    wrapped: Any = hf_model
    inner = wrapped.get_base_model()
    for module in (inner.get_input_embeddings(), inner.get_output_embeddings()):
        config = inner.config.get_text_config()
        if hasattr(module, "base_layer") and config.tie_word_embeddings:
            weight = module.base_layer.weight
            module.base_layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            config.tie_word_embeddings = inner.config.tie_word_embeddings = False
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Let a module compute without its adapters and copies, within the context.

    The context of peft would also change which of them are trainable.
    """
    # Models of Transformers have a method of this name.
    adapted: list[Any] = [
        each for each in module.modules() if getattr(each, "disable_adapters", None) is False
    ]
    for each in adapted:
        each._disable_adapters = True
    try:
        yield
    finally:
        for each in adapted:
            each._disable_adapters = False


def _require_modules(hf_model: PreTrainedModel, setting: str, names: list[str]) -> None:
    # peft ignores a name that matches nothing beside others.
    known = {path.rpartition(".")[2] for path, _ in hf_model.named_modules()}
    if unknown := [name for name in names if name.rpartition(".")[2] not in known]:
        raise ValueError(
            f"lm.lora.{setting}: expected names of modules of {hf_model.config.model_type}, got "
            f"{unknown[0]!r}: {did_you_mean(unknown[0], known, 'correct it')}"
        )
