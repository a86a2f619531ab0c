"""Tiny configurations of real architectures."""

from typing import Any

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
GATED = {**SHAPE, "intermediate_size": 32, "num_key_value_heads": 1}
RECURRENT = {
    name: value
    for name, value in SHAPE.items()
    if name not in ("max_position_embeddings", "initializer_range", "num_attention_heads")
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "qwen3": {**GATED, "head_dim": 8},
    "gpt2": {
        **{name: SHAPE[name] for name in ("vocab_size", "initializer_range", "eos_token_id")},
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "bos_token_id": 0,
    },
    "gpt_neox": {**SHAPE, "intermediate_size": 32},
    "opt": {
        **{name: value for name, value in SHAPE.items() if name != "initializer_range"},
        "init_std": 0.2,
        "ffn_dim": 32,
        "word_embed_proj_dim": 16,
    },
    "gemma3_text": {**GATED, "head_dim": 8, "sliding_window": 16},
    "mamba": {
        **{name: value for name, value in SHAPE.items() if name[:3] not in ("num", "max")},
        "num_hidden_layers": 2,
        "state_size": 4,
    },
    # Heads with a bias, a soft cap, a divisor, a factor.
    "phi": {**SHAPE, "intermediate_size": 32},
    "gemma2": {**GATED, "head_dim": 8, "final_logit_softcapping": 3.0},
    "recurrent_gemma": {
        **RECURRENT,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "lru_width": 16,
        "logits_soft_cap": 3.0,
    },
    "xlstm": {**RECURRENT, "num_heads": 2, "output_logit_soft_cap": 3.0},
    "granite": {**GATED, "logits_scaling": 8.0},
    "cohere": GATED,
    # More embeddings than words.
    "cpmant": {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "dim_head": 8,
        "dim_ff": 32,
    },
}
WITHOUT_SDPA = ("gemma2", "mamba", "recurrent_gemma", "xlstm", "cpmant", "rembert")

# Heads that are more than a linear layer on the last hidden states of the base model.
MORE_THAN_LINEAR: dict[str, dict[str, Any]] = {
    "bert": {**SHAPE, "intermediate_size": 32, "is_decoder": True},
    "rembert": {
        **SHAPE,
        "intermediate_size": 32,
        "output_embedding_size": 24,
        "is_decoder": True,
    },
    "llama4_text": {**GATED, "head_dim": 8, "intermediate_size_mlp": 32, "num_local_experts": 2},
}
