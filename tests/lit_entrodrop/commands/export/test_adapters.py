"""Each kind of adapters is merged into weights that compute what was trained."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from lit_entrodrop.commands.export.weights import restore_model
from lit_entrodrop.model.adapters.lora import merge_lora
from lit_entrodrop.model.adapters.settings import QuantizeConfig
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from tests.helpers.tiny import save_llama

IDS = torch.arange(2, 40).view(2, 19)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Save a model with tied embedding and head, and one without."""
    folder = tmp_path_factory.mktemp("bases")
    widths = {"hidden_size": 64, "intermediate_size": 128}
    return {
        tied: save_llama(folder / str(tied), tie_word_embeddings=tied, **widths)
        for tied in (True, False)
    }


def trained(lm: LMConfig) -> CausalLM:
    """Build a model and change all that is trained, as training would."""
    causal_lm = build_causal_lm(lm).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in causal_lm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return causal_lm


def checkpoint_of(causal_lm: CausalLM) -> dict[str, Any]:
    weights = {f"causal_lm.{name}": each for name, each in causal_lm.state_dict().items()}
    return {"hf_config": causal_lm.config_entries, "state_dict": weights}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return result


def open_plainly(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True, "dropout": 0.1},
    "orthogonal": {"init": "orthogonal"},
    "olora": {"init": "olora"},
    "pissa": {"init": "pissa"},
    "approximate pissa": {"init": "pissa_niter_16"},
    "dora from pissa": {"dora": True, "init": "pissa"},
    "embedding in full": {"modules_to_save": ["embed_tokens"]},
    "head in full": {"modules_to_save": ["lm_head"]},
    "adapted head": {"target_modules": ["q_proj", "lm_head"]},
    "adapted embedding": {"target_modules": ["q_proj", "embed_tokens"], "dora": True},
}


TIES = [(kind, True) for kind in KINDS] + [(kind, False) for kind in KINDS if " " in kind]


@pytest.mark.parametrize(("kind", "tied"), TIES)
def test_merged_model_computes_what_was_trained(
    bases: dict[bool, Path], kind: str, tied: bool, tmp_path: Path
) -> None:
    lm = LMConfig(pretrained=str(bases[tied]), lora=LoRAConfig(rank=2, **KINDS[kind]))
    model = trained(lm)
    expected = logits(model.unwrapped)
    merged = merge_lora(restore_model(checkpoint_of(model), lm).hf_model)
    torch.testing.assert_close(logits(open_plainly(merged, tmp_path)), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"dora": True}], ids=["plain", "dora"])
def test_quantized_base_is_merged_as_it_was_trained(
    bases: dict[bool, Path], settings: dict[str, Any], tmp_path: Path
) -> None:
    lora = LoRAConfig(rank=2, **settings)
    lm = LMConfig(str(bases[True]), quantize=QuantizeConfig(), lora=lora)
    model = trained(lm)
    expected, checkpoint = logits(model.unwrapped), checkpoint_of(model)
    merged = open_plainly(merge_lora(restore_model(checkpoint, lm).hf_model), tmp_path)
    assert not hasattr(merged.config, "quantization_config")
    torch.testing.assert_close(logits(merged), expected, atol=1e-3, rtol=0)
    # The adapters do not fit the original weights.
    original = build_causal_lm(LMConfig(str(bases[True]), lora=lora))
    original.load_state_dict(model.state_dict(), strict=False)
    assert (logits(original.unwrapped) - expected).abs().max() > 1


STARTS = ["default", "orthogonal", "olora", "pissa"]


@pytest.mark.parametrize("init", STARTS)
def test_adapters_alone_load_onto_the_original_base(
    bases: dict[bool, Path], init: Any, tmp_path: Path
) -> None:
    """peft repeats the start of OLoRA and PiSSA, which change the base, when it loads them."""
    lora = LoRAConfig(rank=2, init=init, modules_to_save=["embed_tokens"])
    lm = LMConfig(str(bases[True]), lora=lora)
    model = trained(lm)
    adapters = restore_model(checkpoint_of(model), lm, trained_only=True).hf_model
    cast(Any, adapters).save_pretrained(tmp_path, save_embedding_layers=False)
    base = AutoModelForCausalLM.from_pretrained(bases[True])
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model.unwrapped), atol=1e-3, rtol=0)


def test_adapters_alone_load_onto_a_quantized_base(bases: dict[bool, Path], tmp_path: Path) -> None:
    lm = LMConfig(str(bases[True]), quantize=QuantizeConfig(), lora=LoRAConfig(rank=2))
    model = trained(lm)
    adapters = restore_model(checkpoint_of(model), lm, trained_only=True).hf_model
    cast(Any, adapters).save_pretrained(tmp_path, save_embedding_layers=False)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    base = AutoModelForCausalLM.from_pretrained(bases[True], quantization_config=four_bits)
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model.unwrapped), atol=1e-3, rtol=0)
