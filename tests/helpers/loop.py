"""The smallest training loop that provides all that a regularizer may require."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from regularizers import Outputs, Regularizers, TrainingStep, perturbed_embeddings
from regularizers.functional import is_document_start


class ToyLM(nn.Module):
    """A causal LM whose hidden state is the mean of all embeddings so far; fast.

    Its dropout draws from a generator of its own, seeded by the number of calls: two passes differ,
    and two fresh models do not.
    """

    def __init__(
        self,
        vocabulary_size: int = 64,
        dimensions: int = 8,
        seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.calls = 0
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(
            vocabulary_size,
            dimensions,
            _weight=torch.randn(vocabulary_size, dimensions, generator=generator),
        )
        self.head = nn.Parameter(torch.randn(vocabulary_size, dimensions, generator=generator))

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor) -> Tensor:
        embeddings = self.embedding(input_ids)
        places = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        hidden = embeddings.cumsum(1) / places[:, None]
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        kept = torch.rand(hidden.shape, generator=generator) >= self.dropout
        logits: Tensor = (hidden * kept.to(hidden)) @ self.head.T
        return logits


def make_llama(
    layers: int = 1, seed: int = 0, vocabulary_size: int = 64, tied: bool = False
) -> LlamaForCausalLM:
    """Build a real decoder of some thousand parameters, in training mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).train()
    return model


def positions(document_ids: Tensor) -> Tensor:
    """Number the tokens of each packed document from 0, ``[B, T]`` int64."""
    places = torch.arange(document_ids.shape[1]).expand_as(document_ids)
    starts = torch.where(is_document_start(document_ids), places, 0).cummax(1).values
    return places - starts


def logits_of(model: nn.Module, input_ids: Tensor, document_ids: Tensor) -> Tensor:
    """Run the model on packed documents, ``[B, T, V]``."""
    if isinstance(model, ToyLM):
        return model.forward(input_ids)
    output = model(
        input_ids=input_ids,
        position_ids=positions(document_ids),
        attention_mask=None,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


def forward_with(
    model: nn.Module, step: TrainingStep, input_ids: Tensor, perturb: Callable[[Tensor], Tensor]
) -> Outputs:
    """Run the model with perturbed embeddings."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    with perturbed_embeddings(embedding, perturb):
        logits = logits_of(model, input_ids, step.document_ids)
    return Outputs.from_logits(logits, step.labels, step.document_ids)


def first_forward(model: nn.Module, regularizers: Regularizers, step: TrainingStep) -> Outputs:
    """Run the forward pass of a training step, corrupted and perturbed."""
    input_ids = regularizers.on_input_ids(step)
    return forward_with(
        model, step, input_ids, lambda embeddings: regularizers.on_embeddings(embeddings, step)
    )


def provide(
    model: nn.Module,
    regularizers: Regularizers,
    step: TrainingStep,
    reference_model: nn.Module | None = None,
) -> TrainingStep:
    """Return the step with a second forward pass and a frozen reference model."""

    def second_forward(
        input_ids: Tensor | None = None, perturb: Callable[[Tensor], Tensor] | None = None
    ) -> Outputs:
        if input_ids is None and perturb is None:
            return first_forward(model, regularizers, provided)
        clean = step.input_ids if input_ids is None else input_ids
        return forward_with(model, step, clean, perturb or (lambda embeddings: embeddings))

    @torch.no_grad()
    def reference() -> Outputs:
        frozen = ToyLM(seed=1).to(step.input_ids.device)
        return forward_with(reference_model or frozen, step, step.input_ids, lambda e: e)

    provided = replace(step, second_forward=second_forward, reference=reference)
    return provided
