"""Evaluate the output head of a Hugging Face model with the fused functions.

N tokens, D hidden dimensions, V vocabulary size, R rank of a LoRA adapter.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.linear import linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead
from lit_entrodrop.model.head.lora import (
    UnsupportedHeadError,
    base_linear,
    lora_tensors,
    require_supported,
)
from lit_entrodrop.model.head.losses import HeadOutputs
from lit_entrodrop.model.head.paired_loss import PairedObjective, linear_paired_loss


@dataclass(frozen=True)
class FusedHead:
    """A linear head with a scale and a soft cap.

    Its logits are ``softcap · tanh(scale · (hidden @ weight.T + bias) / softcap)``.

    Args:
        scale: Factor of the logits, as in Cohere, Granite and Falcon-H1.
        softcap: Soft cap of the logits, as in Gemma and xLSTM; None for no cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    def logits(self, products: Tensor) -> Tensor:
        """Return the logits for ``hidden @ weight.T + bias`` of any shape."""
        scaled = self.scale * products
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()

    def logits_of(self, head: nn.Module, hidden: Tensor) -> Tensor:
        """Return the logits ``[N, V]`` of hidden states ``[N, D]``, by the head of a model."""
        return self.logits(head(_in_dtype_of_head(hidden, base_linear(head))))

    def agrees(self, products: Tensor, logits: Tensor) -> bool:
        """Return whether the logits of a model equal those of this head, up to rounding."""
        tolerance = max(4 * torch.finfo(products.dtype).eps, 1e-4)
        return logits.shape == products.shape and torch.allclose(
            logits.float(), self.logits(products.float()), tolerance, tolerance
        )

    def evaluate(
        self, head: nn.Module, hidden: Tensor, labels: Tensor, **options: Any
    ) -> HeadOutputs:
        """Run :func:`linear_ce_entropy` on the head of a model.

        It runs inside the forward call of the head module. FSDP2 and ZeRO-3 therefore gather a
        sharded weight for it, once per pass.

        Args:
            head: ``nn.Linear``, or a linear layer with a LoRA adapter of peft.
            hidden: Hidden states ``[N, D]``.
            labels: Labels ``[N]`` int64.
            options: Further arguments of :func:`linear_ce_entropy`.

        Raises:
            ValueError: If shapes do not fit, or the adapters changed to unsupported ones.
        """

        def forward(hidden: Tensor) -> HeadOutputs:
            hidden, weight, bias, lora, softcap = self.linear_head(head, hidden)
            outputs: HeadOutputs = linear_ce_entropy(
                hidden, weight, labels, bias=bias, lora=lora, softcap=softcap, **options
            )
            return outputs

        return cast(HeadOutputs, _run_as_forward(head, forward, hidden))

    def linear_head(self, head: nn.Module, hidden: Tensor) -> LinearHead:
        """Return the tensors that the head of a model multiplies, given hidden states ``[N, D]``.

        Call it inside the forward pass of the head, where sharded weights are gathered.

        Raises:
            ValueError: If the adapters changed to unsupported ones.
        """
        linear = base_linear(head)
        hidden = _in_dtype_of_head(hidden, linear)
        lora = lora_tensors(head, hidden, self.scale)
        bias = None if linear.bias is None else self.scale * linear.bias
        scaled = hidden if self.scale == 1.0 else self.scale * hidden
        return LinearHead(scaled, linear.weight, bias, lora, self.softcap)


@dataclass(frozen=True)
class FusedPredictions:
    """Predictions of a pass, stored as hidden states; a :class:`regularizers.outputs.Predictions`.

    Args:
        hidden: Hidden states ``[N, D]``, N = B·T.
        unpredicted: Mask ``[B, T]`` bool of tokens that nothing predicts.
        auxiliary_loss: Loss that the model itself adds, if this is a pass without outputs.
    """

    fused_head: FusedHead
    head: nn.Module
    hidden: Tensor
    unpredicted: Tensor
    chunk_size: int | None = None
    auxiliary_loss: Tensor | None = None

    def kl_divergences(self, other: "FusedPredictions") -> tuple[Tensor, Tensor]:
        """Return KL(self ‖ other) and KL(other ‖ self) of each token, ``[B, T]`` nats.

        Both are 0 where nothing predicts the token. Each head runs inside its own forward call,
        where sharded weights are gathered.
        """
        forth, back = (
            divergence.view_as(self.unpredicted).masked_fill(self.unpredicted, 0.0)
            for divergence in self._with_heads(
                other, lambda first, second: linear_kl(first, second, self.chunk_size)
            )
        )
        return forth, back

    def paired_loss(
        self, other: "FusedPredictions", labels: Tensor, objective: PairedObjective
    ) -> HeadOutputs:
        """Run :func:`linear_paired_loss` on these predictions and those of another pass."""
        run = partial(
            linear_paired_loss, labels=labels, objective=objective, chunk_size=self.chunk_size
        )
        outputs: HeadOutputs = self._with_heads(other, run)
        return outputs

    def _with_heads(
        self, other: "FusedPredictions", function: Callable[[LinearHead, LinearHead], Any]
    ) -> Any:
        def forward(hidden: Tensor) -> Any:
            own = self.fused_head.linear_head(self.head, hidden)

            def other_forward(other_hidden: Tensor) -> Any:
                return function(own, other.fused_head.linear_head(other.head, other_hidden))

            if other.head is self.head:
                return other_forward(other.hidden)
            return _run_as_forward(other.head, other_forward, other.hidden)

        return _run_as_forward(self.head, forward, self.hidden)


def fused_head_of(hf_model: PreTrainedModel) -> FusedHead:
    """Return the fused head for the output head and the config of a model.

    Raises:
        UnsupportedHeadError: If :class:`FusedHead` does not describe the head.
    """
    require_supported(hf_model.get_output_embeddings())
    config = hf_model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)
    softcaps = [
        getattr(config, name, None)
        for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    ]
    return FusedHead(scale, next(filter(None, softcaps), None))


def observe_head(
    hf_model: PreTrainedModel, arguments: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a model with values from -1000 to 1000 in place of the products of its head.

    The range reveals a soft cap or a scale whatever the weights are.

    Returns:
        The input of the head ``[..., D]``, the values ``[..., V]``, and the logits ``[..., V]``
        that the model computes from them.

    Raises:
        UnsupportedHeadError: If the model does not call its head exactly once.
    """
    head: Any = hf_model.get_output_embeddings()
    calls = []

    def forward(hidden: Tensor) -> Tensor:
        weight = base_linear(head).weight
        shape = (*hidden.shape[:-1], len(weight))
        values = torch.linspace(-10, 10, math.prod(shape), device=weight.device) ** 3
        products = values.view(shape).to(weight.dtype)
        calls.append((hidden, products))
        return products.clone()

    with _forward_of(head, forward):
        logits: Tensor = hf_model(**arguments).logits
    if len(calls) != 1:
        raise UnsupportedHeadError(f"it calls its head {len(calls)} times")
    return *calls[0], logits


def _in_dtype_of_head(hidden: Tensor, linear: nn.Linear) -> Tensor:
    # Mamba rounds its fp32 hidden states to the dtype of its head.
    narrower = linear.weight.dtype.itemsize < hidden.dtype.itemsize
    return hidden.to(linear.weight.dtype) if narrower else hidden


def _run_as_forward(module: nn.Module, function: Callable[..., Any], *args: Tensor) -> Any:
    with _forward_of(module, function):
        return module(*args)


@contextmanager
def _forward_of(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward method of a module temporarily; its hooks still run."""
    own = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
