from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.model.vocabulary import vocabulary_of
from lit_entrodrop.training.checks import (
    Position,
    check_model_fits_data,
    check_provides,
    check_same_words,
    check_trainer,
    total_steps,
    warn_of_too_few_steps,
)
from lit_entrodrop.training.strategies import FSDPStrategy
from regularizers import Requirements
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.deepspeed_cpu import DeepSpeedOnCPU
from tests.helpers.plugins import Repeat
from tests.helpers.tiny import LLAMA, Tiny


@pytest.mark.parametrize(
    ("architecture", "settings", "named"),
    [
        (LLAMA, {"block_size": 65}, r"context of llama, 64 tokens, got 65: lower"),
        ({**LLAMA, "vocab_size": 319}, {}, "at most the 319 words that the model embeds, got 320"),
        (
            {"model_type": "opt", **ARCHITECTURES["opt"], "vocab_size": 320},
            {},
            "opt with attention 'sdpa' lets packed documents see each other: set data.packing",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny: Tiny, architecture: dict[str, Any], settings: dict[str, Any], named: str
) -> None:
    model = build_causal_lm(tiny.lm(architecture=architecture))
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    with pytest.raises(ValueError, match=named):
        check_model_fits_data(model, tokenizer, tiny.data(**settings))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        (LLAMA, {"block_size": 64}),
        ({**LLAMA, "vocab_size": 400}, {}),
        ({"model_type": "opt", **ARCHITECTURES["opt"], "vocab_size": 320}, {"packing": False}),
    ],
)
def test_what_fits_is_accepted(
    tiny: Tiny, architecture: dict[str, Any], settings: dict[str, Any]
) -> None:
    model = build_causal_lm(tiny.lm(architecture=architecture))
    check_model_fits_data(model, load_tokenizer(str(tiny.tokenizer)), tiny.data(**settings))
    assert model.training


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 3},
        {"max_epochs": 3, "accumulate_grad_batches": 3},
        {"max_epochs": 3, "max_steps": 5},
        {"max_epochs": 2, "max_steps": 10_000},
        {"max_epochs": -1, "max_steps": 7},
        {"max_epochs": None, "max_steps": 7},
        {"max_epochs": 2, "limit_train_batches": 3},
        {"max_epochs": 2, "limit_train_batches": 0.5, "accumulate_grad_batches": 2},
        {"max_epochs": 1, "limit_train_batches": 10_000},
    ],
)
def test_total_steps_are_those_that_lightning_takes(tiny: Tiny, settings: dict[str, Any]) -> None:
    module = tiny.module()
    trainer = tiny.trainer(limit_val_batches=0, **settings)
    trainer.fit(module, datamodule=tiny.data(batch_size=8))
    assert module.total_steps == trainer.global_step
    assert module.total_steps > 0


@pytest.mark.parametrize("settings", [{"max_epochs": -1}, {"max_epochs": 0}])
def test_endless_or_empty_run_is_refused(tiny: Tiny, settings: dict[str, Any]) -> None:
    data = tiny.data()
    data.setup()
    with pytest.raises(ValueError, match="expected max_epochs >= 1 or max_steps >= 1"):
        total_steps(tiny.trainer(**settings), data)


def test_vocabulary_knows_named_and_added_special_tokens(tiny: Tiny) -> None:
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.add_tokens(["ordinaryword"])
    vocabulary = vocabulary_of(tokenizer)
    assert vocabulary.size == 322
    assert vocabulary.special_ids == (0, 1, tokenizer.convert_tokens_to_ids("<|turn|>"))
    assert vocabulary.mask_id is None


def test_vocabulary_knows_the_mask_token(mask_tokenizer: Any) -> None:
    vocabulary = vocabulary_of(load_tokenizer(str(mask_tokenizer)))
    assert vocabulary.mask_id == 2
    assert vocabulary.special_ids == (0, 1, 2)
    assert vocabulary.size == 320


def test_model_that_sees_the_future_is_refused(tiny: Tiny) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    bert = {"model_type": "bert", **sizes, "num_hidden_layers": 1, "vocab_size": 320}
    model = build_causal_lm(tiny.lm(architecture=bert))
    with pytest.raises(ValueError, match=r"expected a causal LM.*bert depend on later tokens"):
        check_model_fits_data(model, load_tokenizer(str(tiny.tokenizer)), tiny.data(packing=False))


@pytest.mark.parametrize("settings", [{"precision": "bf16-true"}, {"overfit_batches": 2}])
def test_unsound_trainer_is_refused(tiny: Tiny, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.(precision|overfit_batches): expected"):
        check_trainer(tiny.trainer(**settings))


def test_sharding_strategy_of_lightning_is_refused(tiny: Tiny) -> None:
    trainer = tiny.trainer(strategy=ModelParallelStrategy())
    with pytest.raises(ValueError, match=r"got lightning\..*\.ModelParallelStrategy"):
        check_trainer(trainer)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_zero2"])
def test_strategy_whose_weights_cannot_be_averaged_is_refused(tiny: Tiny, strategy: str) -> None:
    strategies = {"fsdp": FSDPStrategy, "deepspeed_zero2": partial(DeepSpeedOnCPU, stage=2)}
    trainer = tiny.trainer(strategy=strategies[strategy]())
    check_trainer(trainer)
    with pytest.raises(ValueError, match=r"trainer\.strategy: expected auto, ddp or fsdp2 .*got"):
        check_trainer(trainer, Requirements(teacher=0.9))


def test_half_precision_that_cannot_be_averaged_is_refused(tiny: Tiny) -> None:
    model = build_causal_lm(tiny.lm(dtype="bfloat16"))
    check_provides(model, Requirements())
    with pytest.raises(ValueError, match=r"model\.lm\.dtype: expected float32 .*got torch"):
        check_provides(model, Requirements(teacher=0.9))


def test_model_without_the_dropout_that_is_required_is_refused_before_training(tiny: Tiny) -> None:
    class Twice(Repeat):
        @property
        def requirements(self) -> Requirements:
            return replace(super().requirements, dropout=True)

    settings = {"max_epochs": 1, "limit_val_batches": 0, "limit_train_batches": 1}
    with pytest.raises(ValueError, match=r"expected a model with dropout .* got llama without"):
        tiny.trainer(**settings).fit(tiny.module(Twice()), datamodule=tiny.data())
    with_dropout = tiny.module(Twice(), lm={"config_overrides": {"attention_dropout": 0.1}})
    tiny.trainer(**settings).fit(with_dropout, datamodule=tiny.data())
    assert with_dropout.trainer.global_step == 1


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(-1, 200, 200), (4, -1, 100 + 2 * 15), (4, 120, 120), (1, -1, 100)],
)
def test_steps_of_a_resumed_run_count_what_was_done(
    tiny: Tiny, epochs: int, steps: int, expected: int
) -> None:
    """After 100 steps in two epochs, of other settings, where an epoch now takes 15."""
    data = tiny.data(batch_size=1)
    data.prepare_data()
    data.setup()
    trainer = tiny.trainer(max_epochs=epochs, max_steps=steps, limit_train_batches=15)
    assert total_steps(trainer, data, Position(100, 2, 0)) == expected


def test_reference_that_predicts_other_words_is_refused(tiny: Tiny) -> None:
    model, padded = (
        build_causal_lm(tiny.lm(architecture={**LLAMA, "vocab_size": words}))
        for words in (320, 384)
    )
    check_same_words(model, model)
    with pytest.raises(ValueError, match=r"model\.reference: expected .* got 384 beside 320"):
        check_same_words(model, padded)


def test_too_few_steps_are_told_with_what_would_do(recwarn: pytest.WarningsRecorder) -> None:
    teacher, entropies = Requirements(teacher=0.99), Requirements(entropy="last_epoch")
    warn_of_too_few_steps(teacher, 1000, 100)
    warn_of_too_few_steps(entropies, 200, 100)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"about 100 steps, and this run has 40: .* decay to 0.75"):
        warn_of_too_few_steps(teacher, 40, 10)
    with pytest.warns(UserWarning, match="nothing will be dropped"):
        warn_of_too_few_steps(entropies, 100, 100)
