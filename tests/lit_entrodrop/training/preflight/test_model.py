from dataclasses import replace
from typing import Any

import pytest

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.training.preflight.model import check_model, check_reference
from regularizers import Requirements
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.plugins import Repeat
from tests.helpers.tiny import LLAMA, Tiny


@pytest.mark.parametrize(
    ("architecture", "settings", "named"),
    [
        (LLAMA, {"block_size": 65}, r"context of llama, 64 tokens, got 65: lower"),
        (
            {**LLAMA, "vocab_size": 319},
            {},
            "at most 319 tokens, .* of the model, got 320",
        ),
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
        check_model(model, tokenizer, tiny.data(**settings))


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
    check_model(model, load_tokenizer(str(tiny.tokenizer)), tiny.data(**settings))
    assert model.training


def test_model_that_sees_the_future_is_refused(tiny: Tiny) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    bert = {"model_type": "bert", **sizes, "num_hidden_layers": 1, "vocab_size": 320}
    model = build_causal_lm(tiny.lm(architecture=bert))
    with pytest.raises(ValueError, match=r"expected a causal LM.*bert depend on later tokens"):
        check_model(model, load_tokenizer(str(tiny.tokenizer)), tiny.data(packing=False))


def test_half_precision_that_cannot_be_averaged_is_refused(tiny: Tiny) -> None:
    model = build_causal_lm(tiny.lm(dtype="bfloat16"))
    fit = load_tokenizer(str(tiny.tokenizer)), tiny.data()
    check_model(model, *fit)
    with pytest.raises(ValueError, match=r"model\.lm\.dtype: expected float32 .*got torch"):
        check_model(model, *fit, Requirements(teacher=0.9))


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


def test_reference_of_another_vocabulary_size_is_refused(tiny: Tiny) -> None:
    model, padded = (
        build_causal_lm(tiny.lm(architecture={**LLAMA, "vocab_size": size})) for size in (320, 384)
    )
    check_reference(model, model)
    with pytest.raises(
        ValueError,
        match=r"model\.reference: expected .* 320, padding included, got 384",
    ):
        check_reference(model, padded)
