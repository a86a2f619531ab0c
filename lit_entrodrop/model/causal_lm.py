"""Any Hugging Face causal LM as a module that returns loss and entropy of each token.

B rows in the batch, T tokens in a row, D hidden dimensions, V vocabulary size.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.model.head.fused import FusedHead, FusedPredictions, fused_head_of, observe_head
from lit_entrodrop.model.head.kernels import Backend, require_backend
from lit_entrodrop.model.head.lora import UnsupportedHeadError, enabled_head
from lit_entrodrop.model.own_loss import adds_own_loss, hidden_and_own_loss, logits_and_own_loss
from lit_entrodrop.model.probing import eval_mode, is_close, model_arguments, probe_ids
from lit_entrodrop.model.token_outputs import PartLoss, objective_of, token_outputs
from regularizers import Outputs, Requirements, perturbed_embeddings
from regularizers.functional import IGNORE_INDEX, is_unpredicted, shift_right

HeadBackend = Literal[Backend, "naive"]

NO_REQUIREMENTS = Requirements()

# In PyTorch 2.11, FSDP2 gathers weights for the backward pass only if it finds the outputs that
# need a gradient, and it looks for them in registered classes alone.
for outputs_class in (Outputs, FusedPredictions):
    torch.export.register_dataclass(outputs_class)


class CausalLM(nn.Module):
    """A Hugging Face causal LM and its fused head, in one ``forward``.

    Packed documents are isolated by position ids alone: Transformers does so only if there is
    neither an attention mask nor a cache.

    Args:
        hf_model: The model, optionally wrapped by peft.
        head: Backend of loss and entropy. ``torch`` and ``triton`` never materialize the logits of
            all tokens; ``naive`` takes the model's own logits and supports every head. ``auto``
            selects the faster of ``torch`` and ``triton``, or ``naive`` if the fused head does not
            agree with the model's own logits.
        head_chunk_size: Number of tokens whose logits the fused head computes at once; None for
            the memory budget of :func:`~lit_entrodrop.model.head.linear.default_chunk_size`.

    Raises:
        ValueError: If the selected fused backend does not support the head of the model, or peft
            adapts more than modules of the model.
    """

    def __init__(
        self,
        hf_model: PreTrainedModel,
        head: HeadBackend = "auto",
        head_chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        _require_adapted_modules(hf_model)
        self.hf_model = hf_model
        self.head = head
        self.head_chunk_size = head_chunk_size
        self._device: torch.device | None = None
        self.fused_head = None if head == "naive" else self._checked_fused_head()
        # Without weights (on the meta device), the first rank decides.
        has_weights = hf_model.device.type != "meta"
        self.adds_loss = has_weights and adds_own_loss(self.unwrapped, bool(self.fused_head))

    @property
    def device(self) -> torch.device:
        """Device of the computation; the parameters may be stored elsewhere."""
        return self._device or next(self.parameters()).device

    @device.setter
    def device(self, device: torch.device) -> None:
        self._device = device

    @property
    def unwrapped(self) -> PreTrainedModel:
        """The Hugging Face model, without peft around it."""
        inner = getattr(self.hf_model, "get_base_model", lambda: self.hf_model)()
        return cast(PreTrainedModel, inner)

    @property
    def config_entries(self) -> dict[str, Any]:
        """Configuration of Transformers as plain values, without quantization."""
        entries: dict[str, Any] = self.unwrapped.config.to_dict()
        entries.pop("quantization_config", None)
        return entries

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor,
        document_ids: Tensor,
        perturb: Callable[[Tensor], Tensor] | None = None,
        token_weight: Tensor | None = None,
        required: Requirements = NO_REQUIREMENTS,
        logits_at: Tensor | None = None,
        local_loss: PartLoss | None = None,
        without_head: bool = False,
    ) -> Outputs | FusedPredictions | Tensor:
        """Run the model and its head.

        Args:
            input_ids: Token ids ``[B, T]`` int64.
            labels: Labels ``[B, T]`` int64, aligned with the inputs; -100 is ignored.
            position_ids: Positions ``[B, T]`` int64, starting at 0 in every document.
            document_ids: Document numbers ``[B, T]`` int64, -1 for padding.
            perturb: Function that maps embeddings ``[B, T, D]`` to new ones.
            token_weight: Weights ``[B, T]`` of the tokens; if given, only the weighted loss of the
                outputs may have a gradient.
            required: Whether logits, a gradient through the entropies, entropies among the most
                likely tokens, or the divergence between passes are required.
            logits_at: Position ``[B]`` int64 in each row, to return only the logits that are
                computed from it.
            local_loss: Loss that the fused head computes as the weighted loss, without a partner.
            without_head: Whether to return the predictions before the fused head is run.

        Returns:
            Loss and entropy of each token, aligned with the inputs; or predictions; or logits
            ``[B, V]``.
        """
        embedding = self.hf_model.get_input_embeddings()
        perturbing = (
            perturbed_embeddings(embedding, perturb) if perturb else contextlib.nullcontext()
        )
        arguments = model_arguments(self.unwrapped, input_ids, position_ids)
        fused_head = None if required.logits else self.fused_head
        if logits_at is not None:
            return self._logits_at(arguments, logits_at)
        with perturbing:
            states, auxiliary_loss = self._run(arguments, without_head=fused_head is not None)
        if fused_head is None:
            gradient, top_k = required.entropy_gradient, required.top_entropy
            outputs = Outputs.from_logits(states, labels, document_ids, gradient, top_k)
            kept = outputs.logits if required.logits or required.divergence else None
            return replace(outputs, logits=kept, auxiliary_loss=auxiliary_loss)
        unpredicted = is_unpredicted(document_ids)
        # The hidden state at t predicts token t + 1.
        hidden = shift_right(states, 0.0).flatten(0, 1)
        # Predictions may run it later, when its adapters are enabled again.
        head = enabled_head(self.unwrapped.get_output_embeddings())
        predictions = FusedPredictions(
            fused_head, head, hidden, unpredicted, self.head_chunk_size, auxiliary_loss
        )
        if without_head:
            return predictions
        rows = fused_head.evaluate(
            head,
            hidden,
            labels.masked_fill(unpredicted, IGNORE_INDEX).flatten(),
            token_weight=None if token_weight is None else token_weight.flatten(),
            objective=None if local_loss is None else objective_of(local_loss, unpredicted),
            entropy_gradient=required.entropy_gradient,
            top_k=required.top_entropy,
            chunk_size=self.head_chunk_size,
            backend=self.head,
        )
        return replace(
            token_outputs(rows, unpredicted),
            auxiliary_loss=auxiliary_loss,
            predictions=predictions if required.divergence else None,
        )

    def _logits_at(self, arguments: Mapping[str, Tensor | bool], positions: Tensor) -> Tensor:
        """Return the logits ``[B, V]`` of a position in each row; others cost no memory."""
        states, _ = self._run(arguments, without_head=self.fused_head is not None)
        chosen = states[torch.arange(len(positions), device=positions.device), positions]
        if self.fused_head is None:
            return chosen
        return self.fused_head.logits_of(self.unwrapped.get_output_embeddings(), chosen)

    def _run(
        self, arguments: Mapping[str, Tensor | bool], without_head: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return hidden states or logits, and the loss that the model adds itself in training."""
        if self.adds_loss and self.training and torch.is_grad_enabled():
            run = hidden_and_own_loss if without_head else logits_and_own_loss
            return run(self.unwrapped, arguments)
        if without_head:
            return self.unwrapped.base_model(**arguments).last_hidden_state, None
        return self.unwrapped(**arguments).logits, None

    def require_head(self, device: torch.device) -> None:
        """Raise a ValueError if the backend of the head cannot run on a device."""
        if self.head != "naive":
            require_backend(self.head, device)

    def _checked_fused_head(self) -> FusedHead | None:
        """Return the fused head, if it agrees with the model's own logits.

        Without weights (on the meta device), only the config of the model is checked.
        """
        try:
            fused_head = fused_head_of(self.unwrapped)
            if self.hf_model.device.type != "meta":
                self._require_agreement(fused_head)
        except torch.OutOfMemoryError:
            raise
        except Exception as obstacle:  # a model may raise anything; the naive head may support it
            name = self.unwrapped.config.model_type
            if self.head != "auto":
                raise ValueError(
                    f"head: {self.head!r} does not support {name}: {obstacle}; use 'auto' or "
                    "'naive'"
                ) from obstacle
            rank_zero_warn(
                f"head: using 'naive' for {name}, which needs memory for all logits: {obstacle}"
            )
            return None
        return fused_head

    def _require_agreement(self, fused_head: FusedHead) -> None:
        """Compare the fused head with the model's own logits on eight tokens."""
        ids = probe_ids(self.unwrapped, 8)
        arguments = model_arguments(self.unwrapped, ids)
        with eval_mode(self.unwrapped):
            received, products, logits = observe_head(self.unwrapped, arguments)
            hidden = self.unwrapped.base_model(**arguments).last_hidden_state
            if hidden.shape != received.shape or not is_close(hidden, received):
                raise UnsupportedHeadError("the input of its head is not its last hidden states")
            if not fused_head.agrees(products, logits):
                raise UnsupportedHeadError("its logits differ from those of the fused head")
            # The backend is checked by require_head, once the device is known.
            head, labels = self.unwrapped.get_output_embeddings(), torch.zeros_like(ids[0])
            fused_head.evaluate(head, hidden[0], labels)


def _require_adapted_modules(hf_model: PreTrainedModel) -> None:
    """Check that no adapter acts in peft's own forward pass, which CausalLM does not call."""
    for name, adapter in getattr(hf_model, "peft_config", {}).items():
        if adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None):
            raise ValueError(
                f"peft: expected an adapter that acts within modules of the model, got {name!r} of "
                f"type {type(adapter).__name__}, which changes its inputs or depends on them: use "
                "LoRA without alora_invocation_tokens"
            )
