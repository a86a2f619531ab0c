"""Models are written so that Transformers' own reader computes the same logits from the file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

from lit_entrodrop.commands.export.gguf_format.architectures import check_architecture
from lit_entrodrop.commands.export.gguf_format.writing import write_gguf
from tests.helpers.tiny import LLAMA

# Rows of four quantization blocks, and several heads to a group.
SHAPE = {**LLAMA, "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 16, "rms_norm_eps": 1e-3},
    "llama3": {"rope_parameters": LLAMA3},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 128},
}
IDS = torch.arange(2, 42).view(2, 20)


def make_model(**settings: Any) -> Any:
    """Make a model all of whose weights are random, norms and biases too."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**SHAPE, **settings}))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(IDS).logits
    return result


# What Transformers does not read, llama.cpp reads in test_llama_cpp.py.
UNREAD = ("biases", "llama3", "linear")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNREAD])
def test_transformers_reads_the_same_model(tmp_path: Path, tiny_tokenizer: Path, name: str) -> None:
    model, tokenizer = make_model(**MODELS[name]), AutoTokenizer.from_pretrained(tiny_tokenizer)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, [0], "float32")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf").eval()
    torch.testing.assert_close(logits(read), logits(model), atol=1e-5, rtol=0)
    assert read.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert read.config.max_position_embeddings == 64
    same = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    text = "mild fever, 12 weeks\n\n of  it's"
    assert same(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("dtype", "bytes_of_weight", "tolerance"),
    [("float16", 2, 1e-3), ("bfloat16", 2, 0.02), ("q8_0", 34 / 32, 0.05)],
)
def test_types(
    tmp_path: Path, tiny_tokenizer: Path, dtype: str, bytes_of_weight: float, tolerance: float
) -> None:
    model = make_model()
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, [0], dtype)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32)
    expected = logits(model)
    difference = (logits(read.eval()) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < tolerance
    matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)
    size = (tmp_path / "a.gguf").stat().st_size
    assert 0 < size - matrices * bytes_of_weight < 20_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gpt_neox"}, "of type llama, mistral, qwen2, qwen3 for GGUF, got gpt_neox"),
        ({"hidden_act": "gelu"}, "expected hidden_act silu for GGUF, got gelu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "expected rope_type default, linear, llama3 for GGUF, got dynamic.*llama.cpp",
        ),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_architecture(AutoConfig.for_model(**{**SHAPE, **settings}))
