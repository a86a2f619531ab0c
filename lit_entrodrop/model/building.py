"""Build the model that a config describes."""

import importlib.util
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from lit_entrodrop.model.causal_lm import CausalLM, Head
from lit_entrodrop.model.dropout import DropoutConfig, set_dropout
from lit_entrodrop.model.head.linear import check_chunk_size
from lit_entrodrop.model.loading import (
    load_config,
    load_weights,
    override_config,
    require_known,
)

DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2", "flex_attention"]


# In which mixed precisions compute.
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass
class LoRAConfig:
    """Train low-rank adapters instead of all weights (needs the extra ``peft``).

    Args:
        rank: rank of the adapters.
        alpha: scale numerator; the adapters are scaled by alpha / rank.
        dropout: dropout probability on the adapters' input.
        target_modules: names of the layers to adapt, or ``all-linear``.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


@dataclass
class LMConfig:
    """Which causal LM to train, and how it is held.

    Args:
        pretrained: hub name, model folder, ``.gguf`` file, or ``package:NAME[/PATH]`` inside an
            installed Python package; null for random weights.
        architecture: Transformers configuration for random weights, e.g.
            ``{model_type: llama, hidden_size: 192, ...}``; null if ``pretrained`` is given.
        tokenizer: where the tokenizer lies, if not at ``pretrained``.
        config_overrides: entries of the model's configuration to change, e.g.
            ``{attention_dropout: 0.1}``.
        dtype: dtype in which the weights are held; keep float32 for ``trainer.precision:
            bf16-mixed``.
        attention: attention implementation of Transformers.
        activation_checkpointing: recompute each block in the backward pass to save memory.
        compile: compile each transformer block with torch.compile.
        lora: train LoRA adapters instead of all weights.
        dropout: inside the model while it is trained; null leaves it to the model's own
            configuration.
        head: ``torch``, ``triton`` and ``liger`` compute loss and entropy without holding all
            logits, ``naive`` from the model's own logits; ``auto`` takes the faster of the first
            two, and ``naive`` for a model whose logits are more than they know.
        head_chunk_size: tokens whose logits the fused head holds at once; by default as many as
            take 32 MiB on CPU and 512 MiB elsewhere, but at least 256.
    """

    pretrained: str | None = "package:lit_entrodrop/model/tiny_base"
    architecture: dict[str, Any] | None = None
    tokenizer: str | None = None
    config_overrides: dict[str, Any] = field(default_factory=dict)
    dtype: DType = "float32"
    attention: Attention = "sdpa"
    activation_checkpointing: bool = False
    compile: bool = False
    lora: LoRAConfig | None = None
    dropout: DropoutConfig | None = None
    head: Head = "auto"
    head_chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a config that names no model or two."""
        if (self.pretrained is None) == (self.architecture is None):
            raise ValueError(
                "lm: expected either pretrained or architecture, "
                f"got pretrained={self.pretrained!r} and architecture={self.architecture!r}"
            )
        check_chunk_size(self.head_chunk_size, "lm.head_chunk_size")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LMConfig":
        """Rebuild a config from plain values, as a checkpoint or a YAML file holds them."""
        lora, dropout = values["lora"], values.get("dropout")
        parts = {
            "lora": None if lora is None else LoRAConfig(**lora),
            "dropout": None if dropout is None else DropoutConfig(**dropout),
        }
        return cls(**{**values, **parts})

    @property
    def tokenizer_source(self) -> str:
        """Where the tokenizer lies."""
        source = self.tokenizer or self.pretrained
        if source is None:
            raise ValueError("lm.tokenizer: expected a tokenizer beside lm.architecture, got null")
        return source


def frozen(lm: LMConfig, reference: str | None) -> LMConfig:
    """Describe the frozen reference model of a run.

    Args:
        lm: of the model that is trained.
        reference: name of the frozen one; None for the same.

    >>> frozen(LMConfig(lora=LoRAConfig()), None) == LMConfig()
    True
    """
    if reference is not None:
        lm = replace(lm, pretrained=reference, architecture=None)
    return replace(lm, lora=None, dropout=None, activation_checkpointing=False)


def build_causal_lm(config: LMConfig) -> CausalLM:
    """Build a causal LM in train mode, with pretrained or random weights.

    Raises:
        ValueError: if the model cannot be had; says why.
    """
    hf_config = build_hf_config(config)
    dtype = getattr(torch, config.dtype)
    if config.pretrained is not None:
        hf_model = load_weights(config.pretrained, hf_config, dtype, config.attention)
    else:
        hf_model = _random_weights(hf_config, dtype, config.attention)
    return prepare_causal_lm(hf_model, config)


def build_on_meta(config: LMConfig, hf_config: PretrainedConfig | None = None) -> CausalLM:
    """Build a causal LM in train mode, without weights.

    Args:
        config: of the model.
        hf_config: of Transformers, if it is known already.

    Raises:
        ValueError: if the model cannot be had; says why.
    """
    hf_config = hf_config or build_hf_config(config)
    with torch.device("meta"):
        hf_model = AutoModelForCausalLM.from_config(
            hf_config,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attention,
        )
        return prepare_causal_lm(hf_model, config)


def _random_weights(
    hf_config: PretrainedConfig, dtype: torch.dtype, attention: str
) -> PreTrainedModel:
    try:
        hf_model: PreTrainedModel = AutoModelForCausalLM.from_config(
            hf_config, dtype=dtype, attn_implementation=attention
        )
    except (ValueError, ImportError) as error:
        raise ValueError(f"lm.architecture: cannot build it: {error}") from error
    return hf_model


def build_hf_config(config: LMConfig) -> PretrainedConfig:
    """Return the Transformers configuration of the model, overrides included."""
    if config.pretrained is not None:
        return load_config(config.pretrained, config.config_overrides)
    assert config.architecture is not None, "LMConfig holds one of the two"
    if "model_type" not in config.architecture:
        raise ValueError(
            "lm.architecture: expected an entry model_type (e.g. llama), "
            f"got {sorted(config.architecture)}"
        )
    defaults = AutoConfig.for_model(config.architecture["model_type"])
    # Transformers would keep a misspelled entry without a word, and take the default instead.
    require_known("lm.architecture", defaults, config.architecture)
    return override_config(AutoConfig.for_model(**config.architecture), config.config_overrides)


def prepare_causal_lm(hf_model: PreTrainedModel, config: LMConfig) -> CausalLM:
    """Add dropout, adapters, activation checkpointing, compilation and the head to a model."""
    if config.dropout is not None:
        set_dropout(hf_model, transformer_blocks(hf_model), config.dropout)
    if config.lora is not None:
        hf_model = _add_lora(hf_model, config.lora)
    if config.activation_checkpointing:
        # Transformers 5.23 has given it another name.
        name = "activation_checkpointing_enable"
        enable = getattr(hf_model, name, None) or hf_model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    causal_lm = CausalLM(hf_model, config.head, config.head_chunk_size)
    # After the head has been tried out, which would else compile graphs for a shape of its own.
    if config.compile:
        for block in transformer_blocks(causal_lm):
            # Blocks of tokens have one shape but for the last batch of an epoch: two static graphs
            # beat one that is ready for any shape.
            block.compile(dynamic=False)
    # Transformers loads models in eval mode, in which regularizers and dropout do nothing.
    return causal_lm.train()


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of a model: its longest list of like modules.

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


def _add_lora(hf_model: PreTrainedModel, lora: LoRAConfig) -> PreTrainedModel:
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lm.lora needs the package peft: pip install 'lit-entrodrop[peft]'")
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(hf_model, adapters)  # type: ignore[return-value]
