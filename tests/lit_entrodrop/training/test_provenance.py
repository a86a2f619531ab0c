"""What a checkpoint tells of its training are plain values, without paths of the machine."""

import pytest
import torch

from lit_entrodrop.training.provenance import hub_name, public_name, settings_of
from regularizers import EmbeddingDropout, EntroDrop, Linear
from tests.helpers.plugins import MaskedConsistency
from tests.helpers.tiny import Tiny


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/me/secret/texts.jsonl", "texts.jsonl"),
        ("~/models/mine", "mine"),
        ("../me/mine", "mine"),
        ("file:///home/me/texts.txt", "texts.txt"),
        (r"C:\\Users\\me\\texts.txt", "texts.txt"),
        ("corpora/texts.txt", "corpora/texts.txt"),
        ("hub:org/name:config", "hub:org/name:config"),
        ("package:lit_entrodrop/model/tiny_base", "package:lit_entrodrop/model/tiny_base"),
        ("", ""),
    ],
)
def test_paths_lose_their_folders(name: str, public: str) -> None:
    assert public_name(name) == public


def test_only_what_lies_on_the_hub_is_a_base_model(tiny: Tiny) -> None:
    assert hub_name("org/name") == "org/name"
    for elsewhere in (None, str(tiny.tokenizer), "/gone", "package:lit_entrodrop/model/tiny_base"):
        assert hub_name(elsewhere) is None


def test_settings_of_regularizers() -> None:
    told = settings_of([EntroDrop(curriculum=Linear(end=0.5)), MaskedConsistency(strength=2.0)])
    assert told[0]["init_args"]["curriculum"] == {
        "class_path": "regularizers.curricula.Linear",
        "init_args": {"warmup": 0.0, "hold": 0.0, "start": 0.0, "end": 0.5},
    }
    assert told[1] == {
        "class_path": "tests.helpers.plugins.MaskedConsistency",
        "init_args": {"strength": 2.0},
    }
    assert settings_of(torch.float32) == "torch.dtype"


def test_a_run_is_described_in_plain_values(tiny: Tiny) -> None:
    module = tiny.module(EmbeddingDropout(0.3), seed=5)
    trainer = tiny.trainer(max_steps=2, accumulate_grad_batches=2)
    trainer.fit(module, datamodule=tiny.data())
    told = module.provenance()
    assert told["regularizers"] == [settings_of(EmbeddingDropout(0.3))]
    assert told["optimizer"]["init_args"]["lr"] == 0.01
    assert told["lr_schedule"]["init_args"]["warmup"] == 2
    assert told["trainer"]["accumulate_grad_batches"] == 2
    assert told["seed"] == 5
    assert told["data"]["corpus"] == ["corpus.jsonl"]
    path = tiny.folder / "told.pt"
    torch.save(told, path)
    assert torch.load(path, weights_only=True) == told
