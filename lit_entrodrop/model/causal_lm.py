"""Any Hugging Face causal LM as a module that returns loss and entropy of each token.

B rows in the batch, T tokens in a row, D hidden dimensions, V words.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_entrodrop.model.head import HeadForm, HeadOutputs, UnsupportedHeadError, head_form
from lit_entrodrop.model.head.form import HeadPredictions, observe_head
from lit_entrodrop.model.head.kernels import Backend
from regularizers import Outputs, Requirements, perturbed_embeddings
from regularizers.functional import IGNORE_INDEX, is_unpredicted, shift_right

Head = Literal[Backend, "naive"]

NOTHING_MORE = Requirements()


class CausalLM(nn.Module):
    """A Hugging Face causal LM and its fused head, in one ``forward``.

    Packed documents are kept apart by position ids alone: Transformers isolates them only if there
    is neither an attention mask nor a cache.

    Args:
        hf_model: the model, possibly wrapped by peft.
        head: ``torch`` and ``triton`` never hold the logits of all tokens; ``naive`` takes the
            model's own logits and so works for every head; ``auto`` is the fastest of the first
            two, and ``naive`` where the fused head does not agree with the model's own logits.
        head_chunk_size: tokens whose logits the fused head holds at once; by default what a memory
            budget allows, see :func:`~lit_entrodrop.model.head.linear.default_chunk_size`.

    Raises:
        ValueError: if a fused head is asked for and the model's head is more than that, or peft
            adapts more than modules of the model.
    """

    def __init__(
        self,
        hf_model: PreTrainedModel,
        head: Head = "auto",
        head_chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        _require_adapted_modules(hf_model)
        self.hf_model = hf_model
        self.head = head
        self.head_chunk_size = head_chunk_size
        self._device: torch.device | None = None
        self.form = None if head == "naive" else self._agreeing_form()

    @property
    def device(self) -> torch.device:
        """Where it computes; its parameters may be kept elsewhere."""
        return self._device or next(self.parameters()).device

    @device.setter
    def device(self, device: torch.device) -> None:
        self._device = device

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
        token_weight: Tensor | None = None,
        required: Requirements = NOTHING_MORE,
    ) -> Outputs:
        """Run the model and its head.

        Args:
            input_ids: ``[B, T]`` int64.
            labels: ``[B, T]`` int64, aligned with the inputs, -100 where ignored.
            position_ids: ``[B, T]`` int64, starting at 0 in every document.
            document_ids: ``[B, T]`` int64, -1 for padding.
            perturb: maps embeddings ``[B, T, D]`` to new ones.
            token_weight: ``[B, T]``; if given, only the weighted loss of the outputs needs a
                gradient.
            required: whether logits, a gradient through the entropies, or the divergence between
                passes is required.

        Returns:
            Loss and entropy of each token, aligned with the inputs.
        """
        embedding = self.hf_model.get_input_embeddings()
        perturbing = (
            perturbed_embeddings(embedding, perturb) if perturb else contextlib.nullcontext()
        )
        arguments = model_arguments(self.unwrapped, input_ids, position_ids)
        with perturbing:
            if self.form is None or required.logits:
                outputs = Outputs.from_logits(
                    self.unwrapped(**arguments).logits,
                    labels,
                    document_ids,
                    required.entropy_gradient,
                )
                keeps = required.logits or required.divergence
                return outputs if keeps else replace(outputs, logits=None)
            hidden = self.unwrapped.base_model(**arguments).last_hidden_state
        unpredicted = is_unpredicted(document_ids)
        # Rows past the first token are predicted by the row before.
        hidden = shift_right(hidden, 0.0).flatten(0, 1)
        rows = self._fused(
            self.form,
            hidden,
            labels.masked_fill(unpredicted, IGNORE_INDEX).flatten(),
            None if token_weight is None else token_weight.flatten(),
            required.entropy_gradient,
        )
        nll, entropy, logsumexp, mean_logit, correct = (row.view_as(labels) for row in rows[:5])
        entropy = entropy.masked_fill(unpredicted, torch.nan)
        predictions = None
        if required.divergence:
            head = self.unwrapped.get_output_embeddings()
            predictions = HeadPredictions(
                self.form, head, hidden, unpredicted, self.head_chunk_size
            )
        return Outputs(
            nll,
            entropy,
            logsumexp,
            mean_logit,
            correct,
            weighted_loss=rows.weighted_loss,
            predictions=predictions,
        )

    def require_head(self, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> None:
        """Refuse a head that cannot run on a device.

        Args:
            device: where the head is to run.
            dtype: in which it is to compute: that of autocast, or else of the weights.

        Raises:
            ValueError: saying why.
        """
        if self.form is not None and self.head != "naive":
            head = self.unwrapped.get_output_embeddings()
            self.form.require(self.head, head, device, dtype)

    def _fused(
        self,
        form: HeadForm,
        hidden: Tensor,
        labels: Tensor,
        token_weight: Tensor | None = None,
        entropy_gradient: bool = False,
    ) -> HeadOutputs:
        return form.evaluate(
            self.unwrapped.get_output_embeddings(),
            hidden,
            labels,
            token_weight=token_weight,
            entropy_gradient=entropy_gradient,
            chunk_size=self.head_chunk_size,
            backend=self.head,
        )

    def _agreeing_form(self) -> HeadForm | None:
        """Return the form of the head, if the fused head agrees with the model's own logits.

        What the settings do not tell, a trial on eight tokens does, wherever there are weights.
        """
        try:
            form = head_form(self.unwrapped)
            if self.hf_model.device.type != "meta":
                self._require_agreement(form)
        except torch.OutOfMemoryError:
            raise
        except Exception as obstacle:  # whatever a model may raise: the naive head may serve it
            name = self.unwrapped.config.model_type
            if self.head != "auto":
                raise ValueError(
                    f"head: {self.head!r} cannot serve {name}: {obstacle}; use 'auto' or 'naive'"
                ) from obstacle
            rank_zero_warn(
                f"head: 'naive' serves {name}, which takes memory for all logits: {obstacle}"
            )
            return None
        return form

    def _require_agreement(self, form: HeadForm) -> None:
        ids = probe_ids(self.unwrapped, 8)
        positions = torch.arange(8, device=ids.device)[None]
        arguments = model_arguments(self.unwrapped, ids, positions)
        with evaluating(self.unwrapped):
            received, products, logits = observe_head(self.unwrapped, arguments)
            hidden = self.unwrapped.base_model(**arguments).last_hidden_state
            if hidden.shape != received.shape or not _close(hidden, received):
                raise UnsupportedHeadError("its head receives other than the last hidden states")
            if not form.agrees(products, logits):
                raise UnsupportedHeadError("its logits differ from those of the fused head")
            # Whether a backend can run is known once the device is: see require_head.
            head, labels = self.unwrapped.get_output_embeddings(), torch.zeros_like(ids[0])
            form.evaluate(head, hidden[0], labels)


def model_arguments(
    hf_model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor
) -> dict[str, Tensor | bool]:
    """Return the arguments with which a model keeps packed documents apart, if it can at all."""
    arguments: dict[str, Tensor | bool] = {"input_ids": input_ids, "use_cache": False}
    if _takes_positions(type(hf_model).forward):
        arguments["position_ids"] = position_ids
    return arguments


def embedding_rows(hf_model: PreTrainedModel) -> int:
    """Return how many words a model embeds."""
    return len(cast(nn.Embedding, hf_model.get_input_embeddings()).weight)


def sees_the_future(hf_model: PreTrainedModel) -> bool:
    """Tell whether predictions depend on later tokens: changes the last of eight."""
    ids = probe_ids(hf_model, 8)
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    positions = torch.arange(8, device=ids.device)[None]
    with evaluating(hf_model):
        logits = hf_model(**model_arguments(hf_model, ids, positions)).logits
        changed = hf_model(**model_arguments(hf_model, other, positions)).logits
    return not _close(changed[:, :-1], logits[:, :-1])


def leaks_between_documents(hf_model: PreTrainedModel) -> bool:
    """Tell whether packed documents see each other: compares a packed and a lone document."""
    ids = probe_ids(hf_model, 16)
    lone = torch.arange(8, device=ids.device)[None]
    packed = torch.cat([lone, lone], dim=1)
    with evaluating(hf_model):
        together = hf_model(**model_arguments(hf_model, ids, packed)).logits[:, 8:]
        alone = hf_model(**model_arguments(hf_model, ids[:, 8:], lone)).logits
    return not _close(together, alone)


def _require_adapted_modules(hf_model: PreTrainedModel) -> None:
    """Refuse what acts in peft's own forward, which never runs here."""
    for name, adapter in getattr(hf_model, "peft_config", {}).items():
        if adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None):
            raise ValueError(
                f"peft: expected an adapter that acts within modules of the model, got {name!r} of "
                f"type {type(adapter).__name__}, which changes its inputs or depends on them; use "
                "LoRA without alora_invocation_tokens"
            )


@cache
def _takes_positions(forward: Callable[..., object]) -> bool:
    return "position_ids" in inspect.signature(forward).parameters


def probe_ids(hf_model: PreTrainedModel, length: int) -> Tensor:
    """Return words on which a model can be tried out, ``[1, length]`` int64."""
    size = embedding_rows(hf_model)
    return (torch.arange(length, device=hf_model.device)[None] * 7919 + 1) % size


def _close(actual: Tensor, expected: Tensor) -> bool:
    scale = expected.float().std().clamp(min=1e-6)
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.1
    return bool((actual.float() - expected.float()).abs().max() <= tolerance * scale)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode and build no graph, for as long as the context lasts."""
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        module.train(was_training)
