from typing import Any

import pytest
import torch

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.probing import has_dropout
from tests.helpers.tiny import LLAMA

GPT2 = {"model_type": "gpt2", "vocab_size": 320, "n_embd": 16, "n_layer": 1, "n_head": 2}
OFF = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"architecture": LLAMA}, False),
        ({"architecture": {**LLAMA, "attention_dropout": 0.01}}, True),
        ({"architecture": {**LLAMA, "attention_dropout": 0.01}, "attention": "eager"}, True),
        ({"architecture": GPT2}, True),
        ({"architecture": {**GPT2, **OFF}}, False),
        ({"architecture": {**GPT2, **OFF, "embd_pdrop": 0.01}}, True),
        # Adapters are zero at first, so outputs do not show it.
        ({"architecture": LLAMA, "lora": LoRAConfig(dropout=0.01)}, True),
        ({"architecture": LLAMA, "lora": LoRAConfig()}, False),
    ],
)
def test_dropout_is_found_whatever_it_is_called(settings: dict[str, Any], expected: bool) -> None:
    model = build_causal_lm(LMConfig(pretrained=None, tokenizer="", **settings))
    state = torch.get_rng_state()
    assert has_dropout(model.unwrapped) is expected
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
