"""A real decoder, small enough to be run in every test."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


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
