"""New tokens, from the config to the exported model."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_entrodrop.commands.export import export
from lit_entrodrop.model.added_tokens import read_tokens
from lit_entrodrop.model.building import build_causal_lm, build_on_meta
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.runs import assert_same_curves, fit
from tests.helpers.tiny import CONFIGS, LLAMA, Tiny, texts, write_corpus

NEW = ["fever and", "dyspnea"]
UNTIED = {**LLAMA, "tie_word_embeddings": False}


@pytest.fixture
def base(tiny: Tiny) -> Path:
    torch.manual_seed(0)
    folder = tiny.folder / "base"
    build_causal_lm(tiny.lm(architecture=UNTIED)).hf_model.save_pretrained(folder)
    load_tokenizer(str(tiny.tokenizer)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", [LLAMA, UNTIED], ids=["tied", "untied"])
def test_rows_are_means_of_the_pieces(tiny: Tiny, architecture: dict[str, Any]) -> None:
    old, new = (
        build_causal_lm(tiny.lm(architecture=architecture, add_tokens=tokens)).unwrapped
        for tokens in (None, NEW)
        if L.seed_everything(0, verbose=False) == 0
    )
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    for name in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(model, name)().weight for model in (old, new))
        assert len(after) == len(before) + 2
        torch.testing.assert_close(after[:-2], before, atol=0, rtol=0)
        for row, token in zip(after[-2:], NEW, strict=True):
            pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(token))
            torch.testing.assert_close(row, sum(before[piece] for piece in pieces) / len(pieces))
    tied = architecture["tie_word_embeddings"]
    same = new.get_output_embeddings().weight is new.get_input_embeddings().weight
    assert (new.config.vocab_size, same) == (322, tied)


def test_a_model_with_spare_rows_keeps_its_size(tiny: Tiny) -> None:
    config = tiny.lm(architecture={**LLAMA, "vocab_size": 384}, add_tokens=NEW)
    assert build_causal_lm(config).unwrapped.config.vocab_size == 384
    assert build_on_meta(tiny.lm(add_tokens=NEW)).unwrapped.config.vocab_size == 322


def test_text_has_the_tokens_of_a_file(tiny: Tiny) -> None:
    file = tiny.folder / "terms.txt"
    file.write_text("fever and\n\ndyspnea\n")
    lm = tiny.lm(add_tokens=str(file))
    assert lm.add_tokens == NEW
    tokenizer = tiny.data(add_tokens=str(file)).tokenizer
    ids = tokenizer("a fever and dyspnea", add_special_tokens=False)["input_ids"]
    assert [token for token in ids if token >= 320] == [320, 321]
    assert tokenizer.decode(ids) == "a fever and dyspnea"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "expected text that .* splits into several tokens, got 'a', a token already"),
        (["dyspnea", " "], "expected text, got ' ': remove it"),
        (["dyspnea", "dyspnea"], "expected each token once, got 'dyspnea' twice"),
        ("missing.txt", "with a token per line, got 'missing.txt': No such file"),
    ],
)
def test_what_is_no_new_token_is_refused(tiny: Tiny, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"lm\.add_tokens: .*{message}"):
        load_tokenizer(str(tiny.tokenizer), read_tokens(given))


def train(tiny: Tiny, base: Path, **settings: Any) -> tuple[Any, Path]:
    lm = {"pretrained": str(base), "tokenizer": None, "add_tokens": NEW, **settings}
    module, trainer = tiny.module(lm=lm), tiny.trainer(max_steps=2)
    trainer.fit(module, datamodule=tiny.data(add_tokens=NEW))
    path = tiny.folder / "trained.ckpt"
    trainer.save_checkpoint(path)
    return module.causal_lm.unwrapped.eval(), path


@pytest.mark.parametrize("merge_lora", [True, False])
def test_rows_are_trained_with_adapters_and_exported(
    tiny: Tiny, base: Path, merge_lora: bool
) -> None:
    trained, path = train(tiny, base, lora=LoRAConfig(rank=2))
    folder = export(str(path), str(tiny.folder / "out"), merge_lora=merge_lora)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if merge_lora:
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        plain = AutoModelForCausalLM.from_pretrained(base)
        assert "base.resize_token_embeddings(322)" in (folder / "README.md").read_text()
        plain.resize_token_embeddings(322)
        model = PeftModel.from_pretrained(plain, str(folder))
    ids = tokenizer("mild fever and dyspnea", return_tensors="pt").input_ids
    assert {320, 321} <= set(ids[0].tolist())
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, trained(ids).logits)
    rows = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    assert not torch.equal(trained.get_input_embeddings().weight[:320], rows)


def test_two_ranks_that_shard_train_them_as_one_process_does(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(60))
    settings = ["--model.lm.add_tokens=[fever and, dyspnea]", "--trainer.max_epochs=2"]
    one = fit(tiny, "one", *settings, "--data.batch_size=8")
    fsdp2 = ["--config", str(CONFIGS / "strategy/fsdp2.yaml")]
    two = fit(tiny, "two", *settings, *fsdp2, world_size=2)
    assert len(read_metrics(one)["train/loss"].dropna()) >= 4
    assert_same_curves(two, one, 1e-5)


def test_a_checkpoint_has_the_tokens_not_their_file(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("\n".join(NEW))
    assert LMConfig(add_tokens=str(file)).add_tokens == NEW
