"""Settings of adapters and of quantization."""

from dataclasses import dataclass
from typing import Literal

Initialization = Literal["default", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16"]

# These need the weights of the base model, or subtract the initial adapters from them.
READ_BASE = {"orthogonal", "olora", "pissa", "pissa_niter_16"}
# Without these adapters, the model before training is another one.
CHANGE_BASE = {"olora", "pissa", "pissa_niter_16"}


@dataclass
class LoRAConfig:
    """Train low-rank adapters instead of all weights; needs the extra ``peft``.

    Args:
        rank: Rank of the adapters.
        alpha: Numerator of the scale; the adapters are scaled by alpha / rank.
        dropout: Dropout probability of the input of the adapters.
        target_modules: Names of the layers to adapt, or ``all-linear``.
        rslora: Whether to scale by alpha / sqrt(rank), so that a higher rank still learns (rsLoRA).
        dora: Whether to train the norm of each row of an adapted weight apart from its direction
            (DoRA).
        init: Initial adapters. ``default`` and ``gaussian`` draw A and set B to 0; ``orthogonal``
            draws both, with B A = 0. ``pissa`` and ``olora`` move the largest singular vectors,
            or the first of a QR decomposition, from the base weight to the adapter;
            ``pissa_niter_16`` approximates ``pissa``, which takes minutes for a large model.
        loraplus_lr_ratio: Learning rate of B as a multiple of that of A (LoRA+, where it is 16).
        modules_to_save: Names of modules that are trained in full beside the adapters, e.g.
            ``[embed_tokens]``; null for none.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    init: Initialization = "default"
    loraplus_lr_ratio: float = 1.0
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        """Check that the rank fits the initial adapters."""
        if self.init == "orthogonal" and self.rank % 2:
            raise ValueError(
                f"lm.lora.rank: expected an even rank for init orthogonal, got {self.rank}: add 1"
            )

    @property
    def description(self) -> str:
        """Description of the adapters, for people.

        >>> LoRAConfig(dora=True, init="pissa").description
        'DoRA adapters, rank 16, alpha 32, init pissa'
        """
        kind, copied = "DoRA" if self.dora else "LoRA", ", ".join(self.modules_to_save or [])
        parts = {
            f"{kind} adapters, rank {self.rank}, alpha {self.alpha}": True,
            "scale alpha / sqrt(rank)": self.rslora,
            f"init {self.init}": self.init != "default",
            f"learning rate of B x {self.loraplus_lr_ratio:g}": self.loraplus_lr_ratio != 1,
            f"{copied} in full": bool(copied),
        }
        return ", ".join(text for text, is_used in parts.items() if is_used)


@dataclass
class QuantizeConfig:
    """Store the linear layers of the base model in 4 bits (QLoRA); needs the extra ``qlora``.

    Embeddings, norms and the head keep ``lm.dtype``, in which quantized layers compute too.

    Args:
        quant_type: The 16 numbers that weights are rounded to: ``nf4`` suits normally distributed
            weights, ``fp4`` is a 4-bit float.
        double_quant: Whether to quantize the scales of the blocks of 64 weights too: 4.13 bits a
            weight instead of 4.5.
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of a weight with its share of the scales.

        >>> QuantizeConfig().bytes_per_weight * 8
        4.126953125
        """
        # A scale per 64 weights: fp32, or 8 bits and an fp32 scale per 256 scales.
        return 0.5 + (1 + 4 / 256 if self.double_quant else 4) / 64
