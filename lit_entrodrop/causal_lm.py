"""Any Hugging Face causal LM as a module that returns loss and entropy of each token.

B rows in the batch, T tokens in a row, D hidden dimensions, V words.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.head import linear_ce_entropy
from regularizers import Outputs, perturbed_embeddings
from regularizers.functional import is_unpredicted, predicted_labels, shift_right

Head = Literal["auto", "chunked", "naive"]

# A head of one of these settings is more than a matrix product.
HEAD_EXTRAS = {
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "lm_head_multiplier": 1.0,
}


class CausalLM(nn.Module):
    """A Hugging Face causal LM and its fused head, in one ``forward``.

    Packed documents are kept apart by position ids alone: Transformers isolates them only if there
    is neither an attention mask nor a cache.

    Args:
        hf_model: the model, possibly wrapped by peft.
        head: ``chunked`` never holds the logits of all tokens; ``naive`` takes the model's own
            logits and so works for every head; ``auto`` is chunked where the head is a plain matrix
            product that agrees with the model's own logits, else naive.

    Raises:
        ValueError: if ``chunked`` is asked for and the model's head is more than that.
    """

    def __init__(self, hf_model: PreTrainedModel, head: Head = "auto") -> None:
        super().__init__()
        self.hf_model = hf_model
        obstacle = chunked_head_obstacle(self.unwrapped)
        if head == "chunked" and obstacle:
            raise ValueError(
                f"head: 'chunked' cannot serve {self.unwrapped.config.model_type}: {obstacle}; "
                "use 'auto' or 'naive'"
            )
        self.fused_head = head != "naive" and obstacle is None

    @property
    def unwrapped(self) -> PreTrainedModel:
        """The Hugging Face model itself, without peft around it."""
        inner = getattr(self.hf_model, "get_base_model", lambda: self.hf_model)()
        return cast(PreTrainedModel, inner)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor,
        document_ids: Tensor,
        perturb: Callable[[Tensor], Tensor] | None = None,
        with_logits: bool = False,
    ) -> Outputs:
        """Run the model and its head.

        Args:
            input_ids: ``[B, T]`` int64.
            labels: ``[B, T]`` int64, aligned with the inputs, -100 where ignored.
            position_ids: ``[B, T]`` int64, starting at 0 in every document.
            document_ids: ``[B, T]`` int64, -1 for padding.
            perturb: maps embeddings ``[B, T, D]`` to new ones.
            with_logits: return the logits too.

        Returns:
            Loss and entropy of each token, aligned with the inputs.
        """
        embedding = self.hf_model.get_input_embeddings()
        perturbing = (
            perturbed_embeddings(embedding, perturb) if perturb else contextlib.nullcontext()
        )
        arguments = model_arguments(self.unwrapped, input_ids, position_ids)
        with perturbing:
            if with_logits or not self.fused_head:
                outputs = Outputs.from_logits(
                    self.unwrapped(**arguments).logits, labels, document_ids
                )
                return outputs if with_logits else replace(outputs, logits=None)
            hidden = self.unwrapped.base_model(**arguments).last_hidden_state
        return self._fused(hidden, labels, document_ids)

    def _fused(self, hidden: Tensor, labels: Tensor, document_ids: Tensor) -> Outputs:
        rows = linear_ce_entropy(
            # Rows past the first token are predicted by the row before.
            shift_right(hidden, 0.0).flatten(0, 1),
            self.unwrapped.get_output_embeddings().weight,
            predicted_labels(labels, document_ids).flatten(),
        )
        nll, entropy, logsumexp, correct = (row.view_as(labels) for row in rows)
        unpredicted = is_unpredicted(document_ids)
        return Outputs(nll, entropy.masked_fill(unpredicted, torch.nan), logsumexp, correct)


def model_arguments(
    hf_model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor
) -> dict[str, Tensor | bool]:
    """Return the arguments with which a model keeps packed documents apart, if it can at all."""
    arguments: dict[str, Tensor | bool] = {"input_ids": input_ids, "use_cache": False}
    if "position_ids" in inspect.signature(hf_model.forward).parameters:
        arguments["position_ids"] = position_ids
    return arguments


def chunked_head_obstacle(hf_model: PreTrainedModel) -> str | None:
    """Say why the head of a model is more than a matrix product with the last hidden states.

    What the settings do not tell, a comparison on eight tokens does, wherever there are weights.

    Returns:
        The obstacle, or None.
    """
    head = hf_model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return f"its head is {type(head).__name__}, not nn.Linear"
    if head.bias is not None:
        return "its head has a bias"
    for name, neutral in HEAD_EXTRAS.items():
        if (value := getattr(hf_model.config, name, neutral)) != neutral:
            return f"its logits are changed by {name}={value}"
    if head.weight.is_meta or _head_agrees(hf_model, head):
        return None
    return "its logits differ from hidden states times head weight"


def embedding_rows(hf_model: PreTrainedModel) -> int:
    """Return how many words a model embeds."""
    return len(cast(nn.Embedding, hf_model.get_input_embeddings()).weight)


def sees_the_future(hf_model: PreTrainedModel) -> bool:
    """Tell whether predictions depend on later tokens: changes the last of eight."""
    ids = _probe_ids(hf_model, 8)
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    positions = torch.arange(8, device=ids.device)[None]
    with _evaluating(hf_model):
        logits = hf_model(**model_arguments(hf_model, ids, positions)).logits
        changed = hf_model(**model_arguments(hf_model, other, positions)).logits
    return not _close(changed[:, :-1], logits[:, :-1])


def leaks_between_documents(hf_model: PreTrainedModel) -> bool:
    """Tell whether packed documents see each other: compares a packed and a lone document."""
    ids = _probe_ids(hf_model, 16)
    lone = torch.arange(8, device=ids.device)[None]
    packed = torch.cat([lone, lone], dim=1)
    with _evaluating(hf_model):
        together = hf_model(**model_arguments(hf_model, ids, packed)).logits[:, 8:]
        alone = hf_model(**model_arguments(hf_model, ids[:, 8:], lone)).logits
    return not _close(together, alone)


def _head_agrees(hf_model: PreTrainedModel, head: nn.Linear) -> bool:
    ids = _probe_ids(hf_model, 8)
    arguments = model_arguments(hf_model, ids, torch.arange(8, device=ids.device)[None])
    with _evaluating(hf_model):
        expected = hf_model(**arguments).logits
        return _close(head(hf_model.base_model(**arguments).last_hidden_state), expected)


def _probe_ids(hf_model: PreTrainedModel, length: int) -> Tensor:
    size = embedding_rows(hf_model)
    return (torch.arange(length, device=hf_model.device)[None] * 7919 + 1) % size


def _close(actual: Tensor, expected: Tensor) -> bool:
    scale = expected.float().std().clamp(min=1e-6)
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.1
    return bool((actual.float() - expected.float()).abs().max() <= tolerance * scale)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        module.train(was_training)
