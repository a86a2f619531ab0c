import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.commands.doctor.check import CheckResult
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.doctor.regularizer_checks import (
    curricula,
    drop_rates,
    masks_are_applied,
    special_tokens_are_protected,
)
from lit_entrodrop.commands.doctor.regularizer_probe import strength
from lit_entrodrop.model.dropout import DropoutConfig
from regularizers import (
    Constant,
    EmbeddingDropout,
    EntroDrop,
    HoldoutLossSelection,
    Linear,
    RandomTokenDropout,
    Regularizer,
    Step,
)
from regularizers.adaptive import Adaptive
from regularizers.discovery import own_regularizers
from regularizers.goldfish import Goldfish
from tests.helpers.doctor import check_regularizers, make_run
from tests.helpers.misfits import Boastful, Broken, CountPadding, DropAll, Inert, NotANumber
from tests.helpers.plugins import ExcessLoss, MaskedConsistency
from tests.helpers.tiny import Tiny, texts, write_corpus

CHECKS = (curricula, masks_are_applied, drop_rates, special_tokens_are_protected)


def found(tiny: Tiny, *regularizers: Regularizer, **settings: Any) -> dict[str, CheckResult]:
    checks = check_regularizers(make_run(tiny, *regularizers), *CHECKS, **settings)
    return {check.name: check for check in checks}


def test_sound_regularizers_pass(tiny_module: Tiny) -> None:
    checks = found(
        tiny_module,
        EntroDrop(target="both"),
        RandomTokenDropout(replacement="unigram_token", guidance=0.5),
        EmbeddingDropout(0.3, granularity="position"),
        MaskedConsistency(),
    )
    assert {check.status for check in checks.values()} == {"pass"}, checks
    applied = checks["masks are applied"].found
    assert "entro_drop at 0.397 changes" in applied
    assert "of weights" in applied
    assert "% of ids" in applied
    assert "masked_consistency has no curriculum" in checks["curricula"].found


def test_gains_need_not_be_measured(tiny_module: Tiny) -> None:
    run = make_run(tiny_module, HoldoutLossSelection(), data={"holdout": 0.2})
    checks = check_regularizers(run, *CHECKS)
    assert {check.status for check in checks} == {"pass"}, checks
    assert "holdout_loss_selection at 1 changes" in checks[1].found


def test_no_regularizer_is_no_fault(tiny_module: Tiny) -> None:
    assert {check.status for check in found(tiny_module).values()} == {"pass"}


def test_strength_that_evaluations_drive_is_tried_at_its_largest(tiny_module: Tiny) -> None:
    curriculum = Adaptive(max=0.4)
    checks = found(tiny_module, RandomTokenDropout(curriculum=curriculum))
    assert {check.status for check in checks.values()} == {"pass"}, checks
    assert "random_token_dropout at 0.4 changes" in checks["masks are applied"].found
    assert curriculum(0.5) == 0.0


def test_curriculum_of_zero_is_reported(tiny_module: Tiny) -> None:
    check = found(tiny_module, EntroDrop(curriculum=Constant(0.0)))["curricula"]
    assert check.status == "warn"
    assert "strength of entro_drop is 0 in the whole run" in check.found


@pytest.mark.parametrize(
    ("curriculum", "expected"),
    [
        (Linear(end=0.4), (0.4, 1.0)),
        (Linear(start=0.4, end=0.0, warmup=0.1), (pytest.approx(0.4), 0.1)),
        (Step(values=[0.0, 0.2, 0.0], milestones=[0.5, 0.75]), (0.2, 0.5)),
        (Constant(0.0), (0.0, 1.0)),
        (Adaptive(max=0.3, warmup=0.1), (0.3, 1.0)),
    ],
)
def test_strength_is_that_of_the_end_or_else_the_largest(
    curriculum: Any, expected: tuple[float, float]
) -> None:
    assert strength(RandomTokenDropout(curriculum=curriculum)) == expected


def test_altered_special_tokens_fail(tiny_module: Tiny) -> None:
    check = found(tiny_module, DropAll())["special tokens are protected"]
    assert check.status == "fail"
    assert "drop_all alters embeddings of" in check.found
    assert "step.alterable" in check.remedy


def test_weight_of_padding_fails(tiny_module: Tiny) -> None:
    check = found(tiny_module, CountPadding())["special tokens are protected"]
    assert check.status == "fail"
    assert "count_padding alters weights of" in check.found


def test_embeddings_that_the_model_does_not_read_fail(tiny_module: Tiny) -> None:
    """As in a model whose embedding is not the one that it names."""

    def by_pass(probe: ModelProbe) -> None:
        table = probe.causal_lm.hf_model.get_input_embeddings()

        def look_up(_module: object, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
            return torch.nn.functional.embedding(inputs[0], table.weight)

        table.register_forward_hook(look_up)
        # Whatever comes later is undone before the first layer.
        base = probe.causal_lm.unwrapped.base_model

        def undo(_module: object, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            ids = keywords.pop("input_ids")
            clean = torch.nn.functional.embedding(ids, table.weight)
            table(ids)
            return arguments, {**keywords, "inputs_embeds": clean}

        base.register_forward_pre_hook(undo, with_kwargs=True)

    check = found(tiny_module, EntroDrop(replacement="zero"), prepare=by_pass)["masks are applied"]
    assert check.status == "fail"
    assert "what entro_drop changes does not reach the loss" in check.found


def test_regularizer_that_does_nothing_is_reported(tiny_module: Tiny) -> None:
    check = found(tiny_module, Inert())["masks are applied"]
    assert check.status == "warn"
    assert "inert changes nothing" in check.found


def test_loss_that_is_no_number_fails(tiny_module: Tiny) -> None:
    check = found(tiny_module, NotANumber())["masks are applied"]
    assert check.status == "fail"
    assert "not_anumber makes the loss nan" in check.found


def test_drop_rate_far_from_the_settings_is_reported(tiny_module: Tiny) -> None:
    check = found(tiny_module, Boastful(Constant(0.5)))["drop rates"]
    assert check.status == "warn"
    assert "(50.0% expected)" in check.found


def test_error_of_a_plug_in_fails_each_check_with_its_message(tiny_module: Tiny) -> None:
    checks = found(tiny_module, Broken())
    assert checks["curricula"].status == "pass"
    assert checks["masks are applied"].status == "fail"
    assert checks["masks are applied"].found == "RuntimeError: this plug-in has a bug"


def test_reference_model_and_online_entropies_are_provided(tiny: Tiny) -> None:
    tiny_base = "package:lit_entrodrop/model/tiny_base"
    run = make_run(
        tiny,
        ExcessLoss(),
        EntroDrop(entropy_source="online"),
        lm={"pretrained": tiny_base, "tokenizer": None},
        data={"tokenizer": tiny_base},
    )
    check = check_regularizers(run, masks_are_applied)[0]
    # At the start the model is its own reference, so that nothing is in excess.
    assert check.status == "pass"
    assert "excess_loss at 1 changes no token" in check.found
    assert "it acts once the model has trained" in check.found
    assert "entro_drop at 0.397 changes" in check.found


def test_probed_model_is_released(tiny_module: Tiny) -> None:
    kept: list[weakref.ref[ModelProbe]] = []
    checks = found(tiny_module, EntroDrop(), prepare=lambda probe: kept.append(weakref.ref(probe)))
    assert checks["masks are applied"].status == "pass"
    gc.collect()
    assert kept[0]() is None


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Tiny:
    folder = tmp_path_factory.mktemp("longer")
    corpus = write_corpus(folder / "corpus.jsonl", texts(60, longest=40))
    return Tiny(folder, tiny_tokenizer, corpus)


@pytest.mark.parametrize("name", own_regularizers())
def test_no_method_that_comes_with_the_package_is_called_idle(name: str, longer: Tiny) -> None:
    tiny_base = "package:lit_entrodrop/model/tiny_base"
    run = make_run(
        longer,
        own_regularizers()[name](),
        lm={"pretrained": tiny_base, "tokenizer": None, "dropout": DropoutConfig(hidden=0.1)},
        data={"tokenizer": tiny_base, "block_size": 64, "holdout": 0.1},
    )
    for check in check_regularizers(run, masks_are_applied, drop_rates):
        assert check.status == "pass", check.found


def test_goldfish_warns_if_all_documents_are_too_short(tiny: Tiny) -> None:
    check = found(tiny, Goldfish(context=15))["masks are applied"]
    assert check.status == "warn"
    assert "goldfish changes nothing" in check.found
    assert "documents that are long enough" in check.remedy
