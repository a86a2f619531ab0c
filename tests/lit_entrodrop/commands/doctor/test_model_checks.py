import pytest
import torch
from torch import Tensor

from lit_entrodrop.commands.doctor.check import CheckResult
from lit_entrodrop.commands.doctor.model_checks import (
    accumulation,
    packed_documents_stay_apart,
    packing_difference,
    per_document,
    train_mode,
    validation_error,
)
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.dropout import DropoutConfig
from regularizers import EntroDrop, Regularizer
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.doctor import check_model, make_run
from tests.helpers.misfits import LargestOfBatch
from tests.helpers.tiny import LLAMA, Tiny, texts, write_corpus

CHECKS = (train_mode, packed_documents_stay_apart, accumulation, validation_error)


def test_sound_model_passes_and_is_left_as_it_was(tiny_module: Tiny) -> None:
    # Few documents would leave the validation loss uncertain.
    data = {"validation": 0.3}
    run = make_run(tiny_module, EntroDrop(), lm={"architecture": LLAMA}, data=data)
    before: dict[str, Tensor] = {}

    def keep(probe: ModelProbe) -> None:
        before.update({k: v.clone() for k, v in probe.causal_lm.state_dict().items()})

    found = {check.name: check for check in check_model(run, *CHECKS, prepare=keep)}
    model = run.module.causal_lm
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert run.module.regularizers.names == ["entro_drop"]
    assert {check.status for check in found.values()} == {"pass"}, found
    assert list(found) == [
        "train mode",
        "packed documents stay apart",
        "accumulation",
        "validation error",
    ]
    assert "no dropout of its own" in found["train mode"].found


def only(tiny: Tiny, check: object, *regularizers: Regularizer, **settings: object) -> CheckResult:
    prepare = settings.pop("prepare", lambda _: None)
    run = make_run(tiny, *regularizers, **settings)  # type: ignore[arg-type]
    return check_model(run, check, prepare=prepare)[0]  # type: ignore[arg-type]


def test_model_in_eval_mode_fails(tiny_module: Tiny) -> None:
    check = only(tiny_module, train_mode, prepare=lambda probe: probe.causal_lm.hf_model.eval())
    assert check.status == "fail"
    assert "in eval mode in a training step" in check.found
    assert "eval()" in check.remedy


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_of_the_model_is_reported(tiny_module: Tiny, attention: str) -> None:
    lm = {"config_overrides": {"attention_dropout": 0.5}, "attention": attention}
    check = only(tiny_module, train_mode, lm=lm)
    assert check.status == "pass"
    assert "attention_dropout 0.5 is active" in check.found


def test_dropout_of_the_config_is_reported(tiny_module: Tiny) -> None:
    check = only(tiny_module, train_mode, lm={"dropout": DropoutConfig(hidden=0.1)})
    assert check.status == "pass"
    assert "lm.dropout.hidden 0.1 is active" in check.found


def test_dropout_that_does_nothing_fails(tiny_module: Tiny) -> None:
    """As if its attention ignored the setting."""

    def ignore(probe: ModelProbe) -> None:
        for module in probe.causal_lm.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0

    lm = {"config_overrides": {"attention_dropout": 0.5}}
    check = only(tiny_module, train_mode, lm=lm, prepare=ignore)
    assert check.status == "fail"
    assert "attention_dropout 0.5 changes nothing" in check.found


def test_model_that_leaks_between_packed_documents_fails(tiny_module: Tiny) -> None:
    opt = {"model_type": "opt", **ARCHITECTURES["opt"], "vocab_size": 320}
    leaking = build_causal_lm(tiny_module.lm(architecture=opt))

    def exchange(probe: ModelProbe) -> None:
        probe.causal_lm = leaking

    check = only(tiny_module, packed_documents_stay_apart, prepare=exchange)
    assert check.status == "fail"
    assert "data.packing to false" in check.remedy


def test_packing_difference_of_a_sound_model_is_rounding(tiny_module: Tiny) -> None:
    run = make_run(tiny_module)
    blocks = run.blocks("train")
    assert blocks is not None
    batch = {name: value[None] for name, value in blocks[0].items()}
    model = build_causal_lm(tiny_module.lm())
    difference, documents = packing_difference(model, batch)
    assert documents == batch["document_ids"].max() + 1
    assert 0 <= difference < 1e-5


def test_rows_that_see_each_other_fail(tiny_module: Tiny) -> None:
    def center(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return output - output.mean(0, keepdim=True)

    def mix(probe: ModelProbe) -> None:
        probe.causal_lm.hf_model.get_input_embeddings().register_forward_hook(center)

    check = only(tiny_module, accumulation, prepare=mix)
    assert check.status == "fail"
    assert "data.batch_size" in check.remedy


def test_loss_that_depends_on_the_batch_is_reported(tiny_module: Tiny) -> None:
    check = only(tiny_module, accumulation, LargestOfBatch())
    assert check.status == "warn"
    assert "largest_of_batch" in check.found


def test_validation_loss_of_few_uneven_documents_is_reported(tiny: Tiny) -> None:
    tiny_base = "package:lit_entrodrop/model/tiny_base"
    check = only(
        tiny,
        validation_error,
        lm={"pretrained": tiny_base, "tokenizer": None},
        data={"tokenizer": tiny_base},
    )
    assert check.status == "warn"
    assert "raise data.validation" in check.remedy


def test_validation_documents_count_once(tiny: Tiny) -> None:
    """Also where there are fewer than a batch has rows, and where they are cut into blocks."""
    corpus = write_corpus(tiny.folder / "held_out.jsonl", [f"{text} " * 2 for text in texts(6)])
    data = {"validation": str(corpus)}
    run = make_run(tiny, data=data)
    found: list[int] = []

    def look(probe: ModelProbe) -> CheckResult:
        blocks = run.blocks("validation")
        assert blocks is not None
        batch = probe.rows("validation", passes=99, each_once=True)
        found.extend(batch["block_id"].tolist())
        losses, tokens = per_document(torch.ones(batch["labels"].shape), batch, blocks)
        # All documents, whole, of one nat a token.
        assert losses.tolist() == tokens.tolist()
        assert (len(tokens), tokens.sum()) == (6, blocks.gather()[1].sum())
        return validation_error(probe)

    [check] = check_model(run, look)
    assert check.status != "fail", check
    assert found == list(range(len(found)))
    assert int(check.found.split("from ")[1].split()[0]) <= 6
    assert check.found.endswith("of 6 documents")
