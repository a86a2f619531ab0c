"""How a Hugging Face model makes logits of its last hidden states.

N tokens, D hidden dimensions, V words, R ranks of a LoRA adapter.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.kernels import Backend, require_backend
from lit_entrodrop.model.head.linear import HeadOutputs, linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead


class UnsupportedHeadError(ValueError):
    """Says why the fused head cannot stand for a model's own."""


@dataclass(frozen=True)
class HeadForm:
    """Logits are ``softcap · tanh(scale · (hidden @ weight.T + bias) / softcap)``.

    Args:
        scale: as Cohere, Granite and Falcon-H1 have it.
        softcap: as Gemma and xLSTM have it; None for no cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    def logits(self, products: Tensor) -> Tensor:
        """Return the logits that follow from ``hidden @ weight.T + bias``, of any shape."""
        scaled = self.scale * products
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()

    def agrees(self, products: Tensor, logits: Tensor) -> bool:
        """Tell whether a model's logits are, up to rounding, what follows from the products."""
        tolerance = max(4 * torch.finfo(products.dtype).eps, 1e-4)
        return logits.shape == products.shape and torch.allclose(
            logits.float(), self.logits(products.float()), tolerance, tolerance
        )

    def evaluate(
        self, head: nn.Module, hidden: Tensor, labels: Tensor, **options: Any
    ) -> HeadOutputs:
        """Return what :func:`linear_ce_entropy` says of a model's head.

        It runs as the head's own forward, so that whatever gathers a sharded weight for that
        forward (FSDP, ZeRO-3) does so, once.

        Args:
            head: ``nn.Linear``, or one that peft has given a LoRA adapter.
            hidden: ``[N, D]``.
            labels: ``[N]`` int64.
            options: of :func:`linear_ce_entropy`.

        Returns:
            The outputs of each token.

        Raises:
            ValueError: if shapes do not fit, or the head has other adapters by now.
        """

        def forward(hidden: Tensor) -> HeadOutputs:
            own = self.linear_head(head, hidden)
            outputs: HeadOutputs = linear_ce_entropy(
                own.hidden,
                own.weight,
                labels,
                bias=own.bias,
                lora=own.lora,
                softcap=own.softcap,
                **options,
            )
            return outputs

        return cast(HeadOutputs, _run_as_forward(head, forward, hidden))

    def linear_head(self, head: nn.Module, hidden: Tensor) -> LinearHead:
        """Return what a model's head multiplies; to be called within its forward.

        Args:
            head: as in :meth:`evaluate`.
            hidden: ``[N, D]``.

        Raises:
            ValueError: if the head has other adapters by now.
        """
        linear = _linear(head)
        if linear.weight.dtype.itemsize < hidden.dtype.itemsize:
            # Mamba has fp32 hidden states, which it rounds for its head.
            hidden = hidden.to(linear.weight.dtype)
        lora = _lora(head, hidden, self.scale)
        bias = None if linear.bias is None else self.scale * linear.bias
        scaled = hidden if self.scale == 1.0 else self.scale * hidden
        return LinearHead(scaled, linear.weight, bias, lora, self.softcap)

    def require(
        self,
        backend: Backend,
        head: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Refuse a backend that cannot evaluate a model's head on a device.

        Args:
            backend: of :func:`linear_ce_entropy`.
            head: as in :meth:`evaluate`.
            device: where the head is to run.
            dtype: in which it is to compute.

        Raises:
            ValueError: saying why.
        """
        require_backend(
            backend,
            device,
            dtype=dtype,
            softcap=self.softcap,
            bias=_linear(head).bias is not None,
            lora=hasattr(head, "lora_A"),
        )


@dataclass(frozen=True)
class HeadPredictions:
    """The predictions of a pass, held as its hidden states; a :class:`regularizers.Predictions`.

    Args:
        form: of the head.
        head: of the model.
        hidden: ``[N, D]``.
        unpredicted: ``[B, T]`` bool, tokens that nothing predicts; N = B·T.
        chunk_size: tokens per chunk.
    """

    form: HeadForm
    head: nn.Module
    hidden: Tensor
    unpredicted: Tensor
    chunk_size: int | None = None

    def kl_divergences(self, other: "HeadPredictions") -> tuple[Tensor, Tensor]:
        """Return KL(own ‖ other) and KL(other ‖ own) of each token, ``[B, T]`` nats.

        They are 0 where nothing predicts the token. Each head runs as its own forward, so that
        sharded weights are gathered.
        """

        def forward(hidden: Tensor) -> tuple[Tensor, Tensor]:
            own = self.form.linear_head(self.head, hidden)

            def other_forward(other_hidden: Tensor) -> tuple[Tensor, Tensor]:
                others = other.form.linear_head(other.head, other_hidden)
                return cast(tuple[Tensor, Tensor], linear_kl(own, others, self.chunk_size))

            if other.head is self.head:
                return other_forward(other.hidden)
            both: tuple[Tensor, Tensor] = _run_as_forward(other.head, other_forward, other.hidden)
            return both

        forth, back = (
            divergence.view_as(self.unpredicted).masked_fill(self.unpredicted, 0.0)
            for divergence in _run_as_forward(self.head, forward, self.hidden)
        )
        return forth, back


def head_form(hf_model: PreTrainedModel) -> HeadForm:
    """Read a model's head from its type and its config.

    Raises:
        UnsupportedHeadError: if the head is something else than :class:`HeadForm` describes.
    """
    head = hf_model.get_output_embeddings()
    _check_type(head)
    config = hf_model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)
    softcaps = [
        getattr(config, name, None)
        for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    ]
    return HeadForm(scale, next(filter(None, softcaps), None))


def observe_head(
    hf_model: PreTrainedModel, arguments: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a model with values from -1000 to 1000 in place of what its head returns.

    So a cap or a scale shows whatever the weights are.

    Args:
        hf_model: the model, which stays as it is.
        arguments: of its forward.

    Returns:
        What the head receives ``[..., D]``, the values ``[..., V]``, and the logits that the model
        makes of them.

    Raises:
        UnsupportedHeadError: if the model does not call its head once.
    """
    head: Any = hf_model.get_output_embeddings()
    calls = []

    def forward(hidden: Tensor) -> Tensor:
        weight = _linear(head).weight
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


def _check_type(head: Any) -> None:
    if type(linear := _linear(head)) is not nn.Linear:
        raise UnsupportedHeadError(f"its head is {type(linear).__name__}, not nn.Linear")
    if linear is head:
        return
    if not hasattr(head, "lora_A"):
        raise UnsupportedHeadError(f"its head is adapted by {type(head).__name__}, not by LoRA")
    _active_adapter(head)


def _active_adapter(head: Any) -> str | None:
    """Return the name of the LoRA adapter that a head adds to its weight now, if any."""
    if head.disable_adapters or head.merged:
        return None
    active = [name for name in head.active_adapters if name in head.lora_A]
    if len(active) > 1 or any(
        name in head.lora_variant or head.lora_B[name].bias is not None for name in active
    ):
        raise UnsupportedHeadError("its head has other adapters than one plain LoRA without bias")
    return active[0] if active else None


def _linear(head: Any) -> nn.Linear:
    """Return the head without peft around it."""
    linear: nn.Linear = getattr(head, "base_layer", head)
    return linear


def _lora(head: Any, hidden: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
    if not hasattr(head, "lora_A"):
        return None
    if head.disable_adapters and head.merged:
        # So does the forward of peft, in whose place this runs.
        head.unmerge()
    if (adapter := _active_adapter(head)) is None:
        return None
    down = head.lora_A[adapter]
    reduced = down(head.lora_dropout[adapter](hidden.to(down.weight.dtype)))
    return scale * head.scaling[adapter] * reduced, head.lora_B[adapter].weight


def _run_as_forward(module: nn.Module, function: Callable[..., Any], *args: Tensor) -> Any:
    with _forward_of(module, function):
        return module(*args)


@contextmanager
def _forward_of(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Let a module's call run a function in place of its forward, hooks included."""
    own = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
