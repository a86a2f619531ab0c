import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from lit_entrodrop.commands.export import export
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LoRAConfig
from lit_entrodrop.training.module import LitCausalLM
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.processes import python
from tests.helpers.tiny import LLAMA, Tiny
from tests.helpers.tokenizer_habits import CHATML, make_tokenizer
from tests.helpers.zero import write_zero

IDS = torch.arange(2, 40).view(2, 19)
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return result


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
        # Transformers holds its experts in another form than files do.
        {"architecture": {**LLAMA, "model_type": "mixtral", "num_local_experts": 3}},
        {"activation_checkpointing": True, "head": "naive", "attention": "eager"},
        {"config_overrides": {"attention_dropout": 0.5}},
    ],
    ids=["tied", "untied", "experts", "checkpointing", "override"],
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
    initial.data.setup()
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


def test_lora_is_merged_before_it_is_cast(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    model = open_plainly(export(str(path), str(tiny.folder / "out"), dtype="bfloat16"))
    merged = module.causal_lm.hf_model.merge_and_unload()
    torch.testing.assert_close(model.state_dict(), merged.bfloat16().state_dict(), atol=0, rtol=0)


def test_lora_adapters_alone(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    folder = export(str(path), str(tiny.folder / "out"), merge_lora=False)
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 0
    adapted = PeftModel.from_pretrained(open_plainly(base), str(folder)).eval()
    assert loss(adapted) == pytest.approx(loss(module.causal_lm.hf_model.eval()), abs=1e-5)


def shard(path: Path) -> Path:
    """Save a checkpoint as Lightning does under FSDP2."""
    checkpoint = torch.load(path)
    folder = path.with_name("shards.ckpt")
    dcp.save({"state_dict": checkpoint.pop("state_dict")}, checkpoint_id=folder, no_dist=True)
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, folder / "meta.pt")
    return folder


def test_shards(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    trained = logits(module.causal_lm.hf_model)
    folder = export(str(shard(path)), str(tiny.folder / "out"))
    torch.testing.assert_close(logits(open_plainly(folder)), trained, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("stage", "lora"), [(2, None), (3, None), (3, LoRAConfig(rank=2))], ids=["2", "3", "3 LoRA"]
)
def test_zero(tiny: Tiny, stage: int, lora: LoRAConfig | None) -> None:
    lm = tiny.lm(lora=lora)
    path = write_zero(tiny.folder / "last.ckpt", lm, stage)
    live = build_causal_lm(lm)
    weights = torch.load(path / "expected.pt")
    own = {name.removeprefix("causal_lm."): weights[name] for name in weights if "." in name}
    live.load_state_dict(own)
    folder = export(str(path), str(tiny.folder / "out"))
    model = open_plainly(folder)
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), logits(live.hf_model), atol=1e-5, rtol=0)


def test_adapters_of_a_checkpoint_without_the_frozen_weights(tiny: Tiny, base: Path) -> None:
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    checkpoint = torch.load(path)
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: weights[name] for name in weights if "lora_" in name}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="export them with --merge_lora false"):
        export(str(path), str(tiny.folder / "out"))
    folder = export(str(path), str(tiny.folder / "out"), merge_lora=False)
    adapted = PeftModel.from_pretrained(open_plainly(base), str(folder))
    expected = logits(module.causal_lm.hf_model)
    torch.testing.assert_close(logits(adapted), expected, atol=1e-5, rtol=0)


def test_weights_of_another_model_are_refused(tiny: Tiny) -> None:
    _, path = train(tiny)
    checkpoint = torch.load(path)
    weights = checkpoint["state_dict"]
    weights["causal_lm.hf_model.model.norm.weight"] = torch.ones(3)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"norm\.weight of shape \(16,\), got \(3,\)"):
        export(str(path), str(tiny.folder / "out"))
    weights["causal_lm.hf_model.extra"] = torch.ones(3)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"1 others, the first causal_lm\.hf_model\.extra"):
        export(str(path), str(tiny.folder / "out"))


def test_large_weights_are_cut_into_files(tiny: Tiny) -> None:
    module, path = train(tiny)
    folder = export(str(path), str(tiny.folder / "out"), max_shard_size="10KB")
    sizes = [file.stat().st_size for file in folder.glob("model-*.safetensors")]
    assert len(sizes) > 2
    # The embedding alone is larger, and each file has a header.
    assert sorted(sizes)[-2] < 12_000
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(sizes)
    expected = logits(module.causal_lm.unwrapped)
    torch.testing.assert_close(logits(open_plainly(folder)), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="max_shard_size: expected a size such as 5GB"):
        export(str(path), str(tiny.folder / "other"), max_shard_size="small")


def test_folder_generates_offline_without_this_project(tiny: Tiny, base: Path) -> None:
    GenerationConfig(do_sample=True, temperature=0.5, eos_token_id=0).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base)
    _, path = train(tiny, pretrained=str(base), tokenizer=None)
    folder = export(str(path), str(tiny.folder / "out"))
    script = (
        "import sys; sys.modules['lit_entrodrop'] = sys.modules['peft'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "chat = [{'role': 'user', 'content': 'acute fever'}]\n"
        "inputs = tokenizer.apply_chat_template(chat, return_tensors='pt', return_dict=True)\n"
        "ids = model.generate(**inputs, min_new_tokens=3, max_new_tokens=3)\n"
        "print(len(ids[0]) - len(inputs['input_ids'][0]), model.generation_config.temperature)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        result = python("-c", script, str(folder), cwd=tiny.folder)
    assert result.stdout.split() == ["3", "0.5"], result.stderr


def test_model_stops_where_a_chat_taught_it(tiny: Tiny) -> None:
    """The end of a turn is not the EOS token of this tokenizer, which has another template."""
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=TEMPLATE)
    tokenizer.save_pretrained(tiny.folder / "chatml")
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    corpus = tiny.folder / "chat.jsonl"
    corpus.write_text(json.dumps({"messages": chat}))
    lm = {"tokenizer": str(tiny.folder / "chatml"), "architecture": {**LLAMA, "vocab_size": 4098}}
    module = tiny.module(lm=lm)
    trainer = tiny.trainer(max_steps=40, max_epochs=-1)
    template = tiny.folder / "chat.jinja"
    template.write_text(CHATML)
    data = tiny.data(
        corpus=str(corpus),
        tokenizer=lm["tokenizer"],
        validation=0,
        chat_template=str(template),
        train_on="all",
    )
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tiny.folder / "trained.ckpt")
    template.unlink()
    folder = export(str(tiny.folder / "trained.ckpt"), str(tiny.folder / "out"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), open_plainly(folder)
    assert tokenizer.chat_template == CHATML
    prompt = tokenizer.apply_chat_template(
        chat[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**prompt, max_new_tokens=9)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == "yo<|im_end|>"


@pytest.mark.parametrize("merge_lora", [True, False])
def test_folder_has_nothing_of_the_machine(tiny: Tiny, base: Path, merge_lora: bool) -> None:
    _, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    folder = export(str(path), str(tiny.folder / "out"), merge_lora)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert "README.md" in files
    assert not [name for name, content in files.items() if str(tiny.folder).encode() in content]
    if not merge_lora:
        config = json.loads(files["adapter_config.json"])
        assert config["base_model_name_or_path"] == base.name


def test_gguf_of_merged_adapters(
    tiny: Tiny, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader of Transformers finds the trained model, and the folder what is needed to run it.

    Other models, types and readers are in gguf_format/.
    """
    module, path = train(tiny, pretrained=str(base), tokenizer=None, lora=LoRAConfig(rank=2))
    folder = export(
        str(path), str(tiny.folder / "my-model"), format="gguf", push_to="me/mine", dry_run=True
    )
    file = folder / "my-model-F32.gguf"
    assert sorted(folder.iterdir()) == [folder / "Modelfile", folder / "README.md", file]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name)
    expected = logits(module.causal_lm.hf_model)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    assert 'PARAMETER stop "</s>"' in (folder / "Modelfile").read_text()
    card = (folder / "README.md").read_text()
    assert "- gguf\n" in card
    assert f'from_pretrained("my-model", gguf_file="{file.name}")' in card
    listed = capsys.readouterr().out
    assert "to me/mine (private if it is new)" in listed
    assert f"{file.stat().st_size:,}  {file.name}" in listed


def test_gguf_of_another_architecture_is_refused_before_it_is_read(tiny: Tiny) -> None:
    path = tiny.folder / "any.ckpt"
    config = {"model_type": "gpt_neox"}
    torch.save({"lm": asdict(tiny.lm()), "hf_config": config, "state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"got gpt_neox: export it without --format, and convert"):
        export(str(path), str(tiny.folder / "out"), format="gguf", average=["absent.ckpt"])
    assert not (tiny.folder / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "q8_0"}, "dtype: expected a dtype of PyTorch, got q8_0: add --format gguf"),
        ({"average": []}, "average: expected paths to checkpoints, got none"),
        ({"dry_run": True}, "dry_run: expected push_to, got none"),
        ({"push_to": "mine"}, "push_to: expected owner/name on the hub, got 'mine'"),
    ],
)
def test_options_that_do_not_belong_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export("absent.ckpt", "out", **options)


def test_nothing_is_left_where_the_disk_is_full(tiny: Tiny) -> None:
    _, path = train(tiny)
    (tiny.folder / "place").mkdir()
    place = str(tiny.folder / "place" / "out")
    expected = rf"{place}: could not be written \(.*File too large.*\): 0\.\d MB needed, "
    with files_of_at_most(20_000), pytest.raises(OSError, match=expected):
        export(str(path), place)
    assert not list((tiny.folder / "place").iterdir())


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
