"""The loss that a model's own forward pass adds to the cross-entropy, for example of a router.

Transformers adds it in the model with head, given labels. The cross-entropy is replaced by zero
there, so what remains is the model's own, with its coefficient, whatever the architecture.

B rows in the batch, T tokens in a row, D hidden dimensions, V vocabulary size.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.model.probing import eval_mode, model_arguments, probe_ids
from regularizers.functional import IGNORE_INDEX

Arguments = Mapping[str, Tensor | bool]


def logits_and_own_loss(hf_model: PreTrainedModel, arguments: Arguments) -> tuple[Tensor, Tensor]:
    """Run a model; return its logits ``[B, T, V]``, and the loss that it adds, a scalar."""
    outputs = _forward(hf_model, arguments)
    return outputs.logits, outputs.loss


def hidden_and_own_loss(hf_model: PreTrainedModel, arguments: Arguments) -> tuple[Tensor, Tensor]:
    """Run a model without its head; return its hidden states ``[B, T, D]`` and the loss it adds."""
    head, stand_in = hf_model.get_output_embeddings(), _StandIn()
    hf_model.set_output_embeddings(stand_in)
    try:
        loss = _forward(hf_model, arguments).loss
    finally:
        hf_model.set_output_embeddings(head)
    return stand_in.hidden, loss


def adds_own_loss(hf_model: PreTrainedModel, fused: bool) -> bool:
    """Return whether the forward pass of a model adds a loss, by a run on eight tokens.

    Args:
        hf_model: Model with weights.
        fused: Whether the head of the model is replaced by the fused head.

    Raises:
        ValueError: If the config asks for a loss that cannot be added.
    """
    name, arguments = hf_model.config.model_type, model_arguments(hf_model, probe_ids(hf_model, 8))
    with eval_mode(hf_model):
        try:
            outputs = _forward(hf_model, arguments)
        except Exception as error:  # a model may raise anything
            rank_zero_warn(
                f"lm: {name} cannot compute a loss of its own, so none is added: {error}"
            )
            return False
        asked = getattr(hf_model.config.get_text_config(), "output_router_logits", False)
        if asked and outputs.get("aux_loss") is None:
            raise ValueError(
                f"lm: expected a model whose router has a loss, because its config sets "
                f"output_router_logits, got {name}, for which Transformers has none: set "
                "lm.config_overrides to {output_router_logits: false}"
            )
        if not outputs.loss.any():
            return False
        # The cross-entropy of no label is NaN; a loss of routers needs no labels.
        ignored = torch.full((1, 8), IGNORE_INDEX, device=hf_model.device)
        if not _forward(hf_model, arguments, ignored).loss.allclose(outputs.loss):
            rank_zero_warn(
                f"lm: {name} computes the loss of its labels itself, so a loss that it adds is "
                "unknown, and none is added"
            )
            return False
        if fused and not hidden_and_own_loss(hf_model, arguments)[1].allclose(outputs.loss, 1e-3):
            raise ValueError(
                f"lm: {name} adds a loss of its own that depends on its logits, which head "
                "'auto', 'torch' and 'triton' do not compute at once: set model.lm.head to naive, "
                "or set its coefficient to 0 by lm.config_overrides and use regularizers.ZLoss"
            )
    return True


class _StandIn(nn.Module):
    """Takes the place of the head: keeps its input, and returns one logit per token."""

    hidden: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        self.hidden = hidden
        return hidden[..., :1]


def _forward(hf_model: PreTrainedModel, arguments: Arguments, labels: Tensor | None = None) -> Any:
    with _zero_cross_entropy(hf_model):
        return hf_model(**arguments, labels=arguments["input_ids"] if labels is None else labels)


@contextmanager
def _zero_cross_entropy(hf_model: PreTrainedModel) -> Iterator[None]:
    own = hf_model.loss_function
    hf_model.loss_function = lambda logits, *_, **__: logits.new_zeros((), dtype=torch.float32)
    try:
        yield
    finally:
        hf_model.loss_function = own
