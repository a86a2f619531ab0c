"""The reference model of a run reads the words of the one that is trained."""

import warnings
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_entrodrop.model.config import LMConfig, LoRAConfig, is_within
from lit_entrodrop.model.loading import locate
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from regularizers.reference_kl import ReferenceKL
from regularizers.rho1 import Rho1
from tests.helpers.tiny import Tiny

BASE = "package:lit_entrodrop/model/tiny_base"
LM = {"pretrained": BASE, "tokenizer": BASE}


def save(folder: Path, padding: int = 0) -> str:
    """Save the tiny base model without its tokenizer, with more words than that has."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(locate(BASE).name)
    model.resize_token_embeddings(model.config.vocab_size + padding)
    model.save_pretrained(folder)
    return str(folder)


def test_other_words_are_refused_though_a_tokenizer_is_given(tiny: Tiny) -> None:
    module = tiny.module(Rho1(), reference=BASE)
    with pytest.raises(ValueError, match=rf"vocabulary of .*{tiny.tokenizer.name}, got {BASE}"):
        tiny.trainer(max_steps=1).fit(module, datamodule=tiny.data())


def test_model_without_a_tokenizer_of_its_own_serves(tiny: Tiny) -> None:
    module = tiny.module(ReferenceKL(), lm=LM, reference=save(tiny.folder / "bare"))
    trainer = tiny.trainer(max_steps=1, logger=MetricsFile(tiny.folder / "run"))
    trainer.fit(module, datamodule=tiny.data(tokenizer=BASE))
    [first] = read_metrics(tiny.folder / "run")["reference_kl/divergence"].dropna()
    assert first == pytest.approx(0, abs=1e-5)


def test_more_padding_serves_unless_all_predictions_are_compared(tiny: Tiny) -> None:
    padded = save(tiny.folder / "padded", padding=64)
    data = tiny.data(tokenizer=BASE)
    trainer = tiny.trainer(max_steps=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "model.reference")
        trainer.fit(tiny.module(Rho1(), lm=LM, reference=padded), datamodule=data)
    assert trainer.global_step == 1
    trainer = tiny.trainer(max_steps=1)
    module = tiny.module(ReferenceKL(), lm=LM, reference=padded)
    with pytest.raises(ValueError, match="4096, padding included, got 4160"):
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 0


@pytest.mark.parametrize("reference", [None, BASE, "package:lit_entrodrop/tiny_base"])
def test_a_reference_that_is_the_initial_model_is_reported(
    tiny: Tiny, reference: str | None
) -> None:
    trainer = tiny.trainer(max_steps=1, logger=MetricsFile(tiny.folder / "run"))
    module = tiny.module(Rho1(), lm=LM, reference=reference)
    with pytest.warns(UserWarning, match=r"model.reference: expected a model of its own"):
        trainer.fit(module, datamodule=tiny.data(tokenizer=BASE))
    # All excesses are equal, and no token is excluded for its place.
    assert read_metrics(tiny.folder / "run")["rho1/drop_rate"].dropna().tolist() == [0.0]


def test_the_model_without_its_adapters_is_the_reference(tiny: Tiny) -> None:
    losses = []
    for reference in (None, save(tiny.folder / "copy")):
        lm = {**LM, "lora": LoRAConfig(rank=2, modules_to_save=["embed_tokens"])}
        module = tiny.module(ReferenceKL(5.0), lm=lm, reference=reference)
        trainer = tiny.trainer(
            max_steps=4, logger=MetricsFile(tiny.folder / f"run{reference is None}")
        )
        trainer.fit(module, datamodule=tiny.data(tokenizer=BASE))
        [model] = module.reference.score.args  # type: ignore[union-attr]
        assert (model is module.causal_lm) == (reference is None)
        metrics = read_metrics(tiny.folder / f"run{reference is None}")
        assert metrics["reference_kl/divergence"].max() > 0.01
        losses.append(metrics["train/loss"].dropna().tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert not is_within(LMConfig(lora=LoRAConfig(init="pissa")), None)
