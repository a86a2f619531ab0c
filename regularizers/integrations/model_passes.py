"""Passes of a Trainer's model, and what regularizers read of them."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from regularizers.base import Requirements
from regularizers.compose import perturbed_embeddings
from regularizers.outputs import Outputs
from regularizers.passes import Perturb

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class TrainerBatch:
    """A batch of a Trainer; B rows of T tokens.

    Args:
        inputs: Batch of the collator.
        documents: Number of each token's document, ``[B, T]`` int64.
        required: What the regularizers read.
        router_coefficient: Weight of the loss of a mixture's router; None for that of the model.
    """

    inputs: Inputs
    documents: Tensor
    required: Requirements
    router_coefficient: float | None = None

    def outputs(
        self, model: nn.Module, input_ids: Tensor | None = None, perturb: Perturb | None = None
    ) -> Outputs:
        """Run a model on the batch, or on other token ids, and return what regularizers read.

        Raises:
            ValueError: If the model does not return logits for each token.
        """
        arguments = {name: each for name, each in self.inputs.items() if name != "labels"}
        if input_ids is not None:
            arguments["input_ids"] = input_ids
        arguments["use_cache"] = False
        embedding = local(model).get_input_embeddings()
        with perturbed_embeddings(embedding, perturb) if perturb else nullcontext():
            result = model(**arguments)
        logits, labels = getattr(result, "logits", None), self.inputs["labels"]
        if logits is None or logits.shape[:2] != labels.shape:
            got = "none" if logits is None else f"shape {list(logits.shape)}"
            raise ValueError(
                f"regularizers: expected logits for each of {list(labels.shape)} tokens from the "
                f"model, got {got}: turn off fused losses, such as Liger's, and virtual tokens"
            )
        entropy_gradient, top = self.required.entropy_gradient, self.required.top_entropy
        outputs = Outputs.from_logits(logits, labels, self.documents, entropy_gradient, top)
        return replace(outputs, auxiliary_loss=self._router_loss(model, result))

    def _router_loss(self, model: nn.Module, result: Any) -> Tensor | None:
        loss: Tensor | None = getattr(result, "aux_loss", None)
        if loss is None:
            return None
        coefficient = self.router_coefficient
        if coefficient is None:
            coefficient = local(model).config.get_text_config().router_aux_loss_coef
        return coefficient * loss


def local(model: nn.Module) -> Any:
    """Return the model within DDP."""
    return model.module if isinstance(model, DistributedDataParallel) else model
