from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.building import LMConfig, build_causal_lm
from lit_entrodrop.causal_lm import (
    CausalLM,
    chunked_head_obstacle,
    embedding_rows,
    leaks_between_documents,
)
from regularizers import Outputs
from tests.helpers.architectures import ARCHITECTURES, CHUNKED, NAIVE, WITHOUT_SDPA
from tests.helpers.loop import positions

# Two packed documents and padding; a document of one token and no padding.
DOCUMENT_IDS = torch.tensor([[0] * 7 + [1] * 4 + [-1], [0] + [1] * 11])


def build(name: str, **settings: Any) -> CausalLM:
    torch.manual_seed(0)
    architecture = {"model_type": name, **ARCHITECTURES[name]}
    attention = "eager" if name in WITHOUT_SDPA else "sdpa"
    defaults = {"pretrained": None, "architecture": architecture, "attention": attention}
    return build_causal_lm(LMConfig(**{**defaults, **settings})).eval()


def arguments() -> dict[str, Tensor]:
    ids = torch.randint(2, 64, DOCUMENT_IDS.shape, generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(DOCUMENT_IDS < 0, -100)
    labels[1, 5] = -100
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions(DOCUMENT_IDS),
        "document_ids": DOCUMENT_IDS,
    }


def assert_close(actual: Outputs, expected: Outputs, tolerance: float = 1e-5) -> None:
    for name in ("nll", "entropy"):
        torch.testing.assert_close(
            getattr(actual, name),
            getattr(expected, name),
            atol=tolerance,
            rtol=tolerance,
            equal_nan=True,
        )
    assert torch.equal(actual.correct, expected.correct)


@pytest.mark.parametrize("name", CHUNKED)
def test_fused_and_naive_heads_agree(name: str) -> None:
    fused = build(name)
    assert fused.fused_head
    assert chunked_head_obstacle(fused.unwrapped) is None
    naive = CausalLM(fused.hf_model, "naive")
    actual, expected = fused(**arguments()), naive(**arguments())
    assert_close(actual, expected)
    predicted = ~expected.entropy.isnan()
    torch.testing.assert_close(actual.logsumexp[predicted], expected.logsumexp[predicted])
    gradients = []
    for outputs in (actual, expected):
        fused.zero_grad()
        (outputs.nll.sum() + outputs.logsumexp[predicted].square().sum()).backward()
        gradients.append([parameter.grad for parameter in fused.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NAIVE)
def test_head_that_is_more_than_a_product_uses_the_models_own_logits(name: str) -> None:
    model = build(name)
    _, reason = NAIVE[name]
    assert not model.fused_head
    assert reason in str(chunked_head_obstacle(model.unwrapped))
    with pytest.raises(ValueError, match=rf"'chunked' cannot serve {name}: .*{reason}.*'naive'"):
        build(name, head="chunked")
    given = arguments()
    own = model.unwrapped(
        input_ids=given["input_ids"], position_ids=given["position_ids"], use_cache=False
    ).logits
    expected = -own.log_softmax(-1)[:, :-1].gather(-1, given["input_ids"][:, 1:, None])[..., 0]
    counted = (given["labels"][:, 1:] >= 0) & (given["position_ids"][:, 1:] > 0)
    torch.testing.assert_close(model(**given).nll[:, 1:][counted], expected[counted])


def test_soft_capping_switched_off_allows_the_chunked_head() -> None:
    model = build("gemma2", config_overrides={"final_logit_softcapping": None}, head="chunked")
    assert_close(model(**arguments()), CausalLM(model.hf_model, "naive")(**arguments()))


def test_undeclared_change_of_the_logits_is_noticed() -> None:
    model = build("llama")

    def double(module: Any, args: Any, output: Any) -> Any:
        output.logits = output.logits * 2
        return output

    model.hf_model.register_forward_hook(double)
    again = CausalLM(model.hf_model)
    assert not again.fused_head
    assert "differ" in str(chunked_head_obstacle(again.unwrapped))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "phi", "gemma3_text"])
def test_packed_documents_are_predicted_as_if_alone(name: str, attention: str) -> None:
    model = build(name, attention=attention)
    given = arguments()
    packed = model(**given)
    for row, document in [(0, 0), (0, 1), (1, 1)]:
        place = DOCUMENT_IDS[row] == document
        alone = model(**{key: value[row, place][None] for key, value in given.items()})
        for field in ("nll", "entropy"):
            torch.testing.assert_close(
                getattr(packed, field)[row, place][None],
                getattr(alone, field),
                atol=2e-6,
                rtol=1e-5,
                equal_nan=True,
            )


@pytest.mark.parametrize(
    ("name", "leaks"),
    [("llama", False), ("qwen3", False), ("gpt2", False), ("opt", True), ("mamba", True)],
)
def test_leaks_between_documents(name: str, leaks: bool) -> None:
    model = build(name)
    assert leaks_between_documents(model.unwrapped) is leaks


@pytest.mark.parametrize("training", [True, False])
def test_probes_keep_the_mode_and_the_gradient(training: bool) -> None:
    model = build("llama", head="naive").train(training)
    leaks_between_documents(model.unwrapped)
    chunked_head_obstacle(model.unwrapped)
    assert all(module.training is training for module in model.modules())
    assert model(**arguments()).nll.requires_grad


def test_model_is_built_in_train_mode() -> None:
    torch.manual_seed(0)
    architecture = {"model_type": "llama", **ARCHITECTURES["llama"], "attention_dropout": 0.5}
    model = build_causal_lm(LMConfig(pretrained=None, architecture=architecture))
    assert all(module.training for module in model.modules())
    assert not torch.equal(model(**arguments()).nll, model(**arguments()).nll)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "phi"])
def test_embeddings_are_perturbed_in_one_forward_alone(name: str) -> None:
    model = build(name)
    given = arguments()
    clean = model(**given)
    seen: list[Tensor] = []

    def silence(embeddings: Tensor) -> Tensor:
        seen.append(embeddings)
        return embeddings * 0

    perturbed = model(**given, perturb=silence)
    assert [embeddings.shape for embeddings in seen] == [(2, 12, 16)]
    constant = {**given, "input_ids": torch.full_like(given["input_ids"], 3)}
    assert_close(perturbed, model(**constant, perturb=silence))
    assert not torch.allclose(perturbed.nll, clean.nll)
    assert len(seen) == 2
    assert_close(model(**given), clean, 0)
    assert not model.hf_model.get_input_embeddings()._forward_hooks


def test_hook_is_removed_when_the_forward_fails() -> None:
    model = build("llama")

    def fail(embeddings: Tensor) -> Tensor:
        raise RuntimeError("no embeddings")

    with pytest.raises(RuntimeError, match="no embeddings"):
        model(**arguments(), perturb=fail)
    assert not model.hf_model.get_input_embeddings()._forward_hooks


def test_logits_are_returned_only_when_asked_for() -> None:
    model = build("llama")
    with_logits = model(**arguments(), with_logits=True)
    assert with_logits.logits.shape == (2, 12, 64)
    assert_close(model(**arguments()), with_logits)
    assert model(**arguments()).logits is None
    assert CausalLM(model.hf_model, "naive")(**arguments()).logits is None


def test_starts_and_padding_have_no_loss_and_no_entropy() -> None:
    outputs = build("llama")(**arguments())
    unpredicted = (positions(DOCUMENT_IDS) == 0) | (DOCUMENT_IDS < 0)
    assert torch.equal(outputs.entropy.isnan(), unpredicted)
    assert not outputs.nll[unpredicted].any()


def test_embedding_rows() -> None:
    assert embedding_rows(build("gpt2").unwrapped) == 64
