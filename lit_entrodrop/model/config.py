"""Settings of the model."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from lit_entrodrop.model.adapters.settings import (
    CHANGE_BASE,
    READ_BASE,
    LoRAConfig,
    QuantizeConfig,
)
from lit_entrodrop.model.added_tokens import read_tokens
from lit_entrodrop.model.causal_lm import HeadBackend
from lit_entrodrop.model.dropout import DropoutConfig
from lit_entrodrop.model.head.linear import check_chunk_size

DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2", "flex_attention"]

# Model of the quickstart, which the package contains.
BUNDLED = "package:lit_entrodrop/model/tiny_base"

# Dtype of autocast for each mixed precision of Lightning.
AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass
class LMConfig:
    """The model to train and how its weights are stored.

    Args:
        pretrained: Hub name, model folder, ``.gguf`` file, or ``package:NAME[/PATH]`` inside an
            installed Python package; null for random weights.
        architecture: Transformers configuration for random weights, e.g.
            ``{model_type: llama, hidden_size: 192, ...}``; null if ``pretrained`` is set.
        tokenizer: Hub name, folder or package of the tokenizer; null for ``pretrained``.
        add_tokens: Text that becomes new tokens, such as terms of the domain: a list, or the path
            to a text file with one per line. Embeddings start as the mean of those of its pieces,
            and are trained with LoRA too.
        config_overrides: Entries of the model's configuration to change, e.g.
            ``{attention_dropout: 0.1}``.
        dtype: Dtype of the stored weights; keep float32 for ``trainer.precision: bf16-mixed``.
        attention: Attention implementation of Transformers.
        activation_checkpointing: Whether to recompute each block in the backward pass to save
            memory.
        compile: Whether to compile each transformer block with torch.compile.
        lora: LoRA adapters to train instead of all weights; null trains all weights.
        quantize: 4-bit storage of the weights around the adapters (QLoRA); null stores them in
            ``dtype``.
        dropout: Dropout inside the model during training; null keeps the dropout of the model's
            own configuration.
        head: Backend of loss and entropy. ``torch`` and ``triton`` compute them without
            materializing all logits; ``naive`` computes them from the model's own logits. ``auto``
            selects the faster of ``torch`` and ``triton``, or ``naive`` if the model has a head
            that they do not support.
        head_chunk_size: Number of tokens whose logits the fused head computes at once; null for as
            many as take 32 MiB on CPU and 512 MiB elsewhere, but at least 256.
    """

    pretrained: str | None = BUNDLED
    architecture: dict[str, Any] | None = None
    tokenizer: str | None = None
    add_tokens: list[str] | str | None = None
    config_overrides: dict[str, Any] = field(default_factory=dict)
    dtype: DType = "float32"
    attention: Attention = "sdpa"
    activation_checkpointing: bool = False
    compile: bool = False
    lora: LoRAConfig | None = None
    quantize: QuantizeConfig | None = None
    dropout: DropoutConfig | None = None
    head: HeadBackend = "auto"
    head_chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Check that the config names exactly one model."""
        if (self.pretrained is None) == (self.architecture is None):
            raise ValueError(
                "lm: expected either pretrained or architecture, "
                f"got pretrained={self.pretrained!r} and architecture={self.architecture!r}"
            )
        check_chunk_size(self.head_chunk_size, "lm.head_chunk_size")
        if self.quantize is not None:
            self._check_quantizable()
        # A checkpoint has the tokens, not the path to their file.
        self.add_tokens = read_tokens(self.add_tokens) or None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LMConfig":
        """Build a config from the plain values of a checkpoint or a YAML file."""
        kinds = {"lora": LoRAConfig, "quantize": QuantizeConfig, "dropout": DropoutConfig}
        given = {name: values.get(name) for name in kinds}
        parts = {name: each and kinds[name](**each) for name, each in given.items()}
        return cls(**{**values, **parts})

    def _check_quantizable(self) -> None:
        if self.pretrained is None or self.pretrained.endswith(".gguf"):
            raise ValueError(
                "lm.quantize: expected a pretrained model in safetensors, because checkpoints do "
                f"not contain the quantized weights, got {self.pretrained or 'random weights'}: "
                "name one, or remove lm.quantize"
            )
        if self.lora is not None and self.lora.init in READ_BASE:
            raise ValueError(
                "lm.lora.init: expected default or gaussian with lm.quantize, got "
                f"{self.lora.init}, which computes with the weights of the base model: set default"
            )

    @property
    def tokenizer_source(self) -> str:
        """Hub name, folder or package of the tokenizer."""
        source = self.tokenizer or self.pretrained
        if source is None:
            raise ValueError("lm.tokenizer: expected a tokenizer for lm.architecture, got null")
        return source

    def describe(self) -> str:
        """Say which model it is, on one line.

        >>> LMConfig("Qwen/Qwen3-0.6B").describe()
        'Qwen/Qwen3-0.6B'
        """
        if self.architecture is not None:
            return f"{self.architecture.get('model_type')} with random weights"
        if self.pretrained == BUNDLED:
            return "the bundled tiny LM, for trials only; lit-entrodrop configs model lists others"
        return str(self.pretrained)


def frozen_config(lm: LMConfig, reference: str | None) -> LMConfig:
    """Return the config of the frozen reference model of a run.

    Args:
        lm: Config of the trained model.
        reference: Source of the reference model; None for the trained model before training.

    >>> frozen_config(LMConfig(lora=LoRAConfig()), None) == LMConfig()
    True
    """
    if reference is not None:
        # Its vocabulary must be the same.
        own = lm.tokenizer_source
        lm = replace(lm, pretrained=reference, architecture=None, tokenizer=own)
    return replace(lm, lora=None, dropout=None, activation_checkpointing=False)


def is_within(lm: LMConfig, reference: str | None) -> bool:
    """Return whether the trained model without its adapters is the reference model of a run.

    Args:
        lm: Config of the trained model.
        reference: Source of the reference model; None for the trained model before training.

    >>> is_within(LMConfig(lora=LoRAConfig()), None), is_within(LMConfig(), None)
    (True, False)
    """
    same = (
        lm.lora is not None
        and lm.lora.init not in CHANGE_BASE
        and reference in (None, lm.pretrained)
    )
    # Rows of added tokens are trained in place.
    return same and not lm.add_tokens
