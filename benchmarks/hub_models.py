"""Configurations of the models of the recipes, as `config.json` has them on the Hugging Face hub.

Tests and benchmarks build these without access to the hub. `PARAMETERS` has the published counts.
"""

from typing import Any

_QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000},
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
}
_LLAMA3: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
_GEMMA3: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "head_dim": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32768,
    "sliding_window": 512,  # of five layers in six
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000},
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _shape(
    family: dict[str, Any], layers: int, hidden: int, intermediate: int, **settings: Any
) -> dict[str, Any]:
    return {
        **family,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        **settings,
    }


# By the name of the file in `configs/model`.
HUB_MODELS: dict[str, dict[str, Any]] = {
    "smollm2_135m": _shape(_SMOLLM2, 30, 576, 1536, num_attention_heads=9, num_key_value_heads=3),
    "smollm2_360m": _shape(_SMOLLM2, 32, 960, 2560, num_attention_heads=15, num_key_value_heads=5),
    "smollm2_1.7b": _shape(
        _SMOLLM2,
        24,
        2048,
        8192,
        num_attention_heads=32,
        num_key_value_heads=32,
        rope_parameters={"rope_type": "default", "rope_theta": 130000},
    ),
    "gemma3_270m": _shape(_GEMMA3, 18, 640, 2048),
    "gemma3_1b": _shape(_GEMMA3, 26, 1152, 6912),
    # The text part of a model that also reads images.
    "gemma3_4b": _shape(
        _GEMMA3,
        34,
        2560,
        10240,
        vocab_size=262208,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=131072,
        sliding_window=1024,
    ),
    "qwen3_0.6b": _shape(_QWEN3, 28, 1024, 3072, num_attention_heads=16),
    "qwen3_1.7b": _shape(_QWEN3, 28, 2048, 6144, num_attention_heads=16),
    "qwen3_4b": _shape(_QWEN3, 36, 2560, 9728, num_attention_heads=32),
    "qwen3_8b": _shape(_QWEN3, 36, 4096, 12288, num_attention_heads=32, tie_word_embeddings=False),
    "llama3.2_1b": _shape(_LLAMA3, 16, 2048, 8192, num_attention_heads=32),
    "llama3.2_3b": _shape(_LLAMA3, 28, 3072, 8192, num_attention_heads=24),
    "llama3.1_8b": _shape(
        _LLAMA3,
        32,
        4096,
        14336,
        num_attention_heads=32,
        tie_word_embeddings=False,
        rope_parameters={**_LLAMA3["rope_parameters"], "factor": 8.0},
    ),
}
PARAMETERS = {
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1.7b": 1_711_376_384,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "gemma3_4b": 3_880_263_168,
    "qwen3_0.6b": 596_049_920,
    "qwen3_1.7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "llama3.2_1b": 1_235_814_400,
    "llama3.2_3b": 3_212_749_824,
    "llama3.1_8b": 8_030_261_248,
}
