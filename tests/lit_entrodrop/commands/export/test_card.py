"""The model card tells how the model was trained and how well it does, and nothing else."""

import math
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from lit_entrodrop.commands.export import export
from lit_entrodrop.commands.export.card import write_card
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import Tiny

ENTRODROP = ["--model.regularizers+=regularizers.EntroDrop", "--model.regularizers.quantile=0.25"]


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> Path:
    return tiny_module.run("fit", *ENTRODROP, "--trainer.max_epochs=3")


def card_of(ckpt_path: Path, out: Path) -> ModelCard:
    return ModelCard.load(export(str(ckpt_path), str(out)) / "README.md")


def blocks(card: ModelCard) -> list[object]:
    """Return what the fenced YAML of a card holds."""
    parts = card.text.split("```yaml\n")[1:]
    return [yaml.safe_load(part.partition("```")[0]) for part in parts]


def test_card_of_a_run(tiny: Tiny, run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints/best.ckpt")
    card = card_of(run / "checkpoints/best.ckpt", tiny.folder / "medical")
    assert card.data.library_name == "transformers"
    assert card.data.license == "unknown"
    assert card.data.base_model is None
    assert card.text.lstrip().startswith("# medical\n")
    for told in (
        checkpoint["trained_on"],
        "under EntroDrop",
        "| corpus | corpus.jsonl |",
        f"| length | {checkpoint['global_step']} optimizer steps",
        "AdamW: lr 0.01, betas [0.9, 0.95], eps 1e-08, weight_decay 0.0",
        "LRSchedule: warmup 0.03, decay cosine, final 0.0",
        "world_size 1, precision 32-true, strategy SingleDeviceStrategy",
        f"torch {version('torch')}",
        "tokens in",
    ):
        assert told in card.text
    regularizers, config = blocks(card)
    assert regularizers[0]["class_path"] == "regularizers.entrodrop.EntroDrop"
    assert regularizers[0]["init_args"]["quantile"] == 0.25
    assert regularizers[0]["init_args"]["curriculum"]["init_args"]["midpoint"] == 0.5
    assert config["trainer"]["max_epochs"] == 3
    assert config["trainer"]["default_root_dir"] == "run"


def test_losses_are_those_that_were_measured(tiny: Tiny, run: Path) -> None:
    curve = read_metrics(run)["val/loss"].dropna()
    assert curve.iloc[0] > curve.min() + 0.1
    card = card_of(run / "checkpoints/best.ckpt", tiny.folder / "out")
    best = f"{curve.min():.4f} | {math.exp(curve.min()):.2f} |"
    assert f"| this checkpoint | {curve.idxmin()} | {best}" in card.text
    assert f"| best of the run | {curve.idxmin()} | {best}" in card.text
    assert f"| last of the run | {curve.index[-1]} | {curve.iloc[-1]:.4f} |" in card.text
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["loss"] == pytest.approx(curve.min(), abs=1e-4)
    assert results["perplexity"] == pytest.approx(math.exp(curve.min()), abs=1e-3)


def test_checkpoint_away_from_its_run(tiny: Tiny, run: Path) -> None:
    (tiny.folder / "elsewhere").mkdir()
    moved = Path(shutil.copy(run / "checkpoints/best.ckpt", tiny.folder / "elsewhere/best.ckpt"))
    card = card_of(moved, tiny.folder / "out")
    assert "quantile: 0.25" in card.text
    assert "| this checkpoint |" in card.text
    assert "best of the run" not in card.text
    assert "Config of the run" not in card.text


def test_checkpoint_that_does_not_know_how_it_was_trained(tiny: Tiny, run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints/best.ckpt")
    del checkpoint["provenance"]
    torch.save(checkpoint, tiny.folder / "old.ckpt")
    card = card_of(tiny.folder / "old.ckpt", tiny.folder / "out")
    assert "contains no validation loss" in card.text
    assert "Regularizers" not in card.text
    assert card.data.eval_results is None


def test_plain_fine_tuning_is_called_so(tiny: Tiny) -> None:
    run = tiny.run("fit", "--data.validation=0")
    card = card_of(run / "checkpoints/last.ckpt", tiny.folder / "out")
    assert "None: plain fine-tuning." in card.text
    assert "without a regularizer" in card.text
    assert "contains no validation loss" in card.text


def test_adapters_name_the_model_that_they_are_for(tiny: Tiny, run: Path) -> None:
    path = run / "checkpoints/best.ckpt"
    lm = LMConfig(pretrained="org/name", lora=LoRAConfig(rank=3))
    write_card(tiny.folder, "mine", [path], torch.load(path), lm, adapters=True)
    card = ModelCard.load(tiny.folder / "README.md")
    assert card.data.base_model == "org/name"
    assert card.data.library_name == "peft"
    assert "lora" in card.data.tags
    assert "LoRA adapters trained on `org/name` under EntroDrop" in card.text
    assert 'base = AutoModelForCausalLM.from_pretrained("org/name", dtype="auto")' in card.text
    assert "LoRA adapters, rank 3, alpha 32" in card.text


def test_card_has_nothing_of_the_machine(tiny: Tiny, run: Path) -> None:
    text = card_of(run / "checkpoints/best.ckpt", tiny.folder / "out").content
    for folder in (run.parent, tiny.folder, tiny.tokenizer, Path.home()):
        assert str(folder) not in text
