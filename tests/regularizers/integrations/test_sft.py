"""TRL's SFTTrainer under regularizers."""

import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM, set_seed

from lit_entrodrop.model.loading import load_tokenizer
from regularizers import MIR, EntroDrop, Goldfish, integrations
from tests.helpers.tiny import build_tokenizer, save_llama, texts, write_corpus

trl: Any = pytest.importorskip("trl", reason="needs TRL")
PAGE = Path(__file__).parents[3] / "docs" / "integrations.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_llama(tmp_path_factory.mktemp("sft") / "model")
    return build_tokenizer(folder)


def losses(trainer: Any) -> list[float]:
    set_seed(0)  # of the order of the rows
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("packing", [False, True])
def test_losses_are_those_of_the_trainer_on_the_same_batches(
    model: Path, tmp_path: Path, packing: bool
) -> None:
    def given() -> dict[str, Any]:
        chosen = EntroDrop(curriculum=0.7), Goldfish(0.4, context=2), MIR(kept_prefix=1)
        weights = LlamaForCausalLM.from_pretrained(model)
        return {"model": weights, "args": args, "regularizers": chosen}

    args = trl.SFTConfig(
        str(tmp_path),
        packing=packing,
        max_length=32,
        num_train_epochs=2,
        per_device_train_batch_size=1 if packing else 4,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
    )
    tokenizer = load_tokenizer(str(model))
    corpus = Dataset.from_dict({"text": texts(30)})
    sft = integrations.RegularizedSFTTrainer(
        **given(), train_dataset=corpus, processing_class=tokenizer
    )
    plain = integrations.RegularizedTrainer(
        **given(),
        train_dataset=sft.train_dataset,
        data_collator=sft.data_collator,
        processing_class=tokenizer,
    )
    found = losses(sft)
    assert len(found) >= 8
    assert found == pytest.approx(losses(plain), rel=1e-6)
    logged = [entry for entry in sft.state.log_history if "loss" in entry][-1]
    assert logged["entro_drop/drop_rate"] > 0
    assert {"entropy", "mean_token_accuracy"} <= logged.keys()


def test_another_loss_of_trl_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GeneralizedCrossEntropy"):
        integrations.RegularizedSFTTrainer(
            str(model),
            trl.SFTConfig(str(tmp_path), loss_type="dft", use_cpu=True, report_to=[]),
            train_dataset=Dataset.from_dict({"text": texts(2)}),
            regularizers=[Goldfish()],
        )


def test_example_of_the_documentation_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "notes.jsonl", texts(24))
    (tmp_path / "model").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    history = names["trainer"].state.log_history
    rates = [entry["entro_drop/drop_rate"] for entry in history if "loss" in entry]
    assert rates[0] == 0
    assert rates[-1] > 0
