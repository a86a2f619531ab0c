from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lit_entrodrop.building import LoRAConfig
from lit_entrodrop.export import export
from lit_entrodrop.module import LitCausalLM
from tests.helpers.tiny import LLAMA, Tiny

IDS = torch.arange(2, 40).view(2, 19)


def loss(model: Any) -> float:
    return float(model(input_ids=IDS, labels=IDS, use_cache=False).loss)


def train(tiny: Tiny, **lm: Any) -> tuple[LitCausalLM, Path]:
    """Train two steps and save a checkpoint."""
    module = tiny.module(lm=lm)
    trainer = tiny.trainer(max_steps=2)
    trainer.fit(module, datamodule=tiny.data())
    path = tiny.folder / "trained.ckpt"
    trainer.save_checkpoint(path)
    return module, path


def open_plainly(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval()


@pytest.mark.parametrize(
    "lm",
    [
        {},
        {"architecture": {**LLAMA, "tie_word_embeddings": False}},
        {"activation_checkpointing": True, "head": "naive", "attention": "eager"},
        {"config_overrides": {"attention_dropout": 0.5}},
    ],
    ids=["tied", "untied", "checkpointing", "override"],
)
def test_folder_opens_with_plain_transformers(tiny: Tiny, lm: dict[str, Any]) -> None:
    module, path = train(tiny, **lm)
    folder = export(str(path), str(tiny.folder / "out"))
    model = open_plainly(folder)
    assert model.dtype == torch.float32
    assert loss(model) == pytest.approx(loss(module.causal_lm.unwrapped.eval()), abs=1e-5)
    overrides = lm.get("config_overrides", {})
    assert model.config.attention_dropout == overrides.get("attention_dropout", 0.0)
    assert len(AutoTokenizer.from_pretrained(folder)) == 320
    assert (folder / "model.safetensors").exists()
    assert not list(folder.glob("*.bin"))


def test_trained_weights_are_written_not_initial_ones(tiny: Tiny) -> None:
    module, path = train(tiny)
    model = open_plainly(export(str(path), str(tiny.folder / "out")))
    torch.testing.assert_close(model.state_dict(), module.causal_lm.unwrapped.state_dict())
    initial = tiny.module()
    initial.trainer = tiny.trainer()
    initial.trainer.datamodule = tiny.data()
    initial.configure_model()
    assert loss(initial.causal_lm.unwrapped.eval()) != pytest.approx(loss(model), abs=1e-3)


@pytest.mark.parametrize(("lm", "dtype"), [({"dtype": "bfloat16"}, None), ({}, "bfloat16")])
def test_dtype(tiny: Tiny, lm: dict[str, Any], dtype: Any) -> None:
    module, path = train(tiny, **lm)
    model = open_plainly(export(str(path), str(tiny.folder / "out"), dtype=dtype))
    assert model.dtype == torch.bfloat16
    assert loss(model) == pytest.approx(loss(module.causal_lm.unwrapped.eval()), abs=0.05)


@pytest.fixture
def base(tiny: Tiny) -> Path:
    """Save a model as a folder of Transformers, with its tokenizer."""
    _, path = train(tiny)
    return export(str(path), str(tiny.folder / "base"))


def test_lora_is_merged(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    trained = loss(module.causal_lm.hf_model.eval())
    assert trained != pytest.approx(loss(open_plainly(base)), abs=1e-3)
    folder = export(str(path), str(tiny.folder / "out"))
    assert not (folder / "adapter_config.json").exists()
    assert loss(open_plainly(folder)) == pytest.approx(trained, abs=1e-5)


def test_lora_adapters_alone(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    folder = export(str(path), str(tiny.folder / "out"), merge_lora=False)
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    adapted = PeftModel.from_pretrained(open_plainly(base), str(folder)).eval()
    assert loss(adapted) == pytest.approx(loss(module.causal_lm.hf_model.eval()), abs=1e-5)


def test_used_folder_is_refused_and_left_alone(tiny: Tiny) -> None:
    _, path = train(tiny)
    (tiny.folder / "out").mkdir()
    export(str(path), str(tiny.folder / "out"))
    before = {file.name: file.stat().st_mtime_ns for file in (tiny.folder / "out").iterdir()}
    with pytest.raises(ValueError, match="expected a new or empty folder, got"):
        export(str(path), str(tiny.folder / "out"))
    after = {file.name: file.stat().st_mtime_ns for file in (tiny.folder / "out").iterdir()}
    assert after == before


def test_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="expected a checkpoint written by `fit`, got"):
        export(str(tmp_path / "foreign.ckpt"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
