"""The export refuses adapters that llama.cpp would apply in part; test_llama_cpp.py has others."""

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from lit_entrodrop.commands.export.gguf_format.adapters import check_adapters
from tests.lit_entrodrop.commands.export.gguf_format.test_architectures import make_model


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_more_than_two_matrices_is_refused(settings: dict[str, Any]) -> None:
    model = make_model(num_hidden_layers=1, tie_word_embeddings=False)
    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **settings})
    with pytest.raises(ValueError, match=r"format: expected only matrices A and B .* got \S+: exp"):
        check_adapters(get_peft_model(model, config))
