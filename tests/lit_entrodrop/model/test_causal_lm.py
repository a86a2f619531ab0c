from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.probing import embedding_rows, leaks_between_documents
from regularizers import Outputs, Requirements
from regularizers.functional import document_positions
from tests.helpers.architectures import ARCHITECTURES, MORE_THAN_LINEAR, WITHOUT_SDPA

# Two packed documents and padding; a document of one token and no padding.
DOCUMENT_IDS = torch.tensor([[0] * 7 + [1] * 4 + [-1], [0] + [1] * 11])


def build(name: str, **settings: Any) -> CausalLM:
    torch.manual_seed(0)
    architecture = {"model_type": name, **{**ARCHITECTURES, **MORE_THAN_LINEAR}[name]}
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
        "position_ids": document_positions(DOCUMENT_IDS),
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_and_naive_heads_agree(name: str) -> None:
    fused = build(name)
    assert fused.fused_head is not None
    assert_heads_agree(fused)


def assert_heads_agree(fused: CausalLM) -> None:
    naive = CausalLM(fused.hf_model, "naive")
    actual, expected = fused(**arguments()), naive(**arguments())
    assert_close(actual, expected)
    positions = torch.tensor([3, 10])
    # Outputs have the logits at the token that they predict.
    whole = naive(**arguments(), required=Requirements(logits=True)).logits[[0, 1], positions + 1]
    for each in (fused, naive):
        torch.testing.assert_close(each(**arguments(), logits_at=positions), whole)
    predicted = ~expected.entropy.isnan()
    for name in ("logsumexp", "mean_logit"):
        torch.testing.assert_close(
            getattr(actual, name)[predicted], getattr(expected, name)[predicted]
        )
    gradients = []
    for outputs in (actual, expected):
        fused.zero_grad()
        (outputs.nll.sum() + outputs.logsumexp[predicted].square().sum()).backward()
        gradients.append([p.grad for p in fused.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
    weight = torch.rand(DOCUMENT_IDS.shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for loss in (
        fused(**arguments(), token_weight=weight).weighted_loss,
        (weight * naive(**arguments()).nll).sum(),
    ):
        fused.zero_grad()
        loss.backward()
        gradients.append([p.grad for p in fused.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def divergence_of_two_passes(causal_lm: CausalLM) -> tuple[Tensor, list[Tensor]]:
    """Return the divergence of a clean pass from one with large embeddings, and its gradients."""
    required = Requirements(divergence=True)
    clean = causal_lm(**arguments(), required=required)
    other = causal_lm(**arguments(), perturb=lambda e: 2 * e, required=required)
    assert (clean.logits is None) == (causal_lm.fused_head is not None)
    divergence, back = clean.kl_divergences(other)
    causal_lm.zero_grad()
    (divergence + back).sum().backward()
    gradients = [p.grad for p in causal_lm.parameters() if p.grad is not None]
    return divergence.detach(), [gradient.clone() for gradient in gradients]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", ["llama", "cohere", "phi", "gemma2"])
def test_divergence_of_two_passes_agrees_with_that_of_their_logits(name: str, lora: bool) -> None:
    adapter = LoRAConfig(rank=2, target_modules=["lm_head"]) if lora else None
    fused = build(name, lora=adapter)
    for parameter in fused.parameters():
        if lora and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    divergence, gradients = divergence_of_two_passes(fused)
    expected = divergence_of_two_passes(CausalLM(fused.hf_model, "naive"))
    assert divergence.max() > 1e-4
    assert (divergence[DOCUMENT_IDS < 0] == 0).all()
    torch.testing.assert_close(divergence, expected[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradients, expected[1], atol=1e-4, rtol=1e-3)


def test_divergence_of_passes_that_kept_nothing_is_refused() -> None:
    outputs = build("llama")(**arguments())
    with pytest.raises(ValueError, match="set divergence=True in the requirements"):
        outputs.kl_divergence(outputs)


@pytest.mark.parametrize("name", ["llama", "cohere", "phi", "gemma2"])
def test_lora_on_the_head(name: str) -> None:
    targets = ["q_proj", "lm_head"]
    fused = build(name, lora=LoRAConfig(rank=2, alpha=3, dropout=0.5, target_modules=targets))
    assert fused.fused_head is not None
    for parameter in fused.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    assert_heads_agree(fused)


def peft_model(**settings: Any) -> Any:
    """A Llama whose adapters all differ from zero."""
    config = LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM", **settings)
    adapted = get_peft_model(build("llama").hf_model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return adapted


def test_lora_on_the_head_is_switched_off_and_on() -> None:
    adapted = peft_model()
    fused, naive = CausalLM(adapted), CausalLM(adapted, "naive")
    with_adapter = naive(**arguments())
    adapted.merge_adapter()
    assert_close(fused(**arguments()), with_adapter)
    with adapted.disable_adapter():
        without = fused(**arguments())
        assert_close(without, naive(**arguments()))
    assert not torch.allclose(without.nll, with_adapter.nll)
    assert_close(fused(**arguments()), with_adapter)


@pytest.mark.parametrize("settings", [{"lora_bias": True}, {"use_dora": True}])
def test_lora_that_is_more_than_two_matrices_is_left_to_the_naive_head(
    settings: dict[str, bool],
) -> None:
    adapted = peft_model(**settings)
    with pytest.warns(UserWarning, match="adapters other than one plain LoRA without bias"):
        assert CausalLM(adapted).fused_head is None


def test_adapter_that_comes_later_is_checked() -> None:
    adapted = peft_model()
    fused = CausalLM(adapted)
    later = LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM", lora_bias=True)
    adapted.add_adapter("later", later)
    adapted.set_adapter("later")
    with pytest.raises(ValueError, match="adapters other than one plain LoRA without bias"):
        fused(**arguments())


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        LoraConfig(
            target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[3, 4]
        ),
    ],
    ids=["prompt", "alora"],
)
@pytest.mark.parametrize("head", ["auto", "naive"])
def test_adapter_outside_the_modules_is_refused(config: Any, head: Any) -> None:
    adapted = get_peft_model(build("llama").hf_model, config)
    with pytest.raises(ValueError, match=f"'default' of type {type(config).__name__}"):
        CausalLM(adapted, head)


def test_gradient_through_the_entropy() -> None:
    fused = build("gemma2")
    gradients = []
    for model in (fused, CausalLM(fused.hf_model, "naive")):
        fused.zero_grad()
        outputs = model(**arguments(), required=Requirements(entropy_gradient=True))
        outputs.entropy.nansum().backward()
        gradients.append([parameter.grad for parameter in fused.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


def test_entropy_among_the_most_likely_tokens() -> None:
    fused = build("gemma2")
    required = Requirements(top_entropy=20)
    actual, expected = (
        model(**arguments(), required=required).top_entropy
        for model in (fused, CausalLM(fused.hf_model, "naive"))
    )
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert torch.equal(actual.isnan(), fused(**arguments()).entropy.isnan())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "phi"])
def test_small_logits_of_half_precision_are_fused(name: str, dtype: str) -> None:
    architecture = {
        "model_type": name,
        **ARCHITECTURES[name],
        "vocab_size": 8000,
        "initializer_range": 0.02,
    }
    fused = build(name, architecture=architecture, dtype=dtype)
    assert fused.fused_head is not None
    naive = CausalLM(fused.hf_model, "naive")
    assert_close(fused(**arguments()), naive(**arguments()), 1e-4)


def test_hidden_states_are_rounded_as_the_model_rounds_them() -> None:
    fused = build("mamba", dtype="bfloat16")
    assert fused.fused_head is not None
    with torch.no_grad():
        fused.unwrapped.get_output_embeddings().weight.mul_(50)
    assert_close(fused(**arguments()), CausalLM(fused.hf_model, "naive")(**arguments()), 1e-4)


def change_logits(model: CausalLM, change: Callable[[Tensor], Tensor]) -> None:
    def hook(module: Any, args: Any, output: Any) -> Any:
        output.logits = change(output.logits)
        return output

    model.hf_model.register_forward_hook(hook)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change",
    [
        lambda logits: 30 * (logits / 30).tanh(),
        lambda logits: 1.1 * logits,
        lambda logits: logits + torch.linspace(-1, 1, 64, dtype=logits.dtype),
        lambda logits: logits.log_softmax(-1),
        lambda logits: logits[..., :60],
    ],
    ids=["cap", "scale", "bias", "normalization", "slice"],
)
def test_undeclared_change_is_noticed_whatever_the_weights(
    change: Callable[[Tensor], Tensor], dtype: str
) -> None:
    model = build("llama", dtype=dtype)
    with torch.no_grad():
        model.unwrapped.get_output_embeddings().weight.zero_()
    assert CausalLM(model.hf_model, "torch").fused_head is not None
    change_logits(model, change)
    with pytest.warns(UserWarning, match="its logits differ from those of the fused head"):
        assert CausalLM(model.hf_model).fused_head is None


def test_naive_head_serves_undeclared_logits() -> None:
    model = build("llama")
    change_logits(model, lambda logits: logits * 2)
    with pytest.warns(UserWarning, match="using 'naive' for llama.*its logits differ"):
        again = CausalLM(model.hf_model)
    assert again.fused_head is None
    with pytest.raises(
        ValueError, match=r"'torch' does not support llama: its logits differ.*'naive'"
    ):
        CausalLM(model.hf_model, "torch")
    given = arguments()
    own = again.unwrapped(
        input_ids=given["input_ids"], position_ids=given["position_ids"], use_cache=False
    ).logits
    expected = -own.log_softmax(-1)[:, :-1].gather(-1, given["input_ids"][:, 1:, None])[..., 0]
    counted = (given["labels"][:, 1:] >= 0) & (given["position_ids"][:, 1:] > 0)
    torch.testing.assert_close(again(**given).nll[:, 1:][counted], expected[counted])


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("bert", "the input of its head is not its last hidden states"),
        ("rembert", "the input of its head is not its last hidden states"),
        ("llama4_text", "no attribute 'last_hidden_state'"),
    ],
)
def test_head_that_is_more_than_linear_is_left_to_the_naive_head(name: str, obstacle: str) -> None:
    with pytest.warns(UserWarning, match=f"using 'naive' for {name}.*{obstacle}"):
        model = build(name)
    assert model.fused_head is None
    assert model(**arguments()).nll.any()


def test_model_that_calls_no_head_is_left_to_the_naive_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("llama")
    other = torch.nn.Linear(16, 64)
    monkeypatch.setattr(model.hf_model, "get_output_embeddings", lambda: other)
    with pytest.warns(UserWarning, match="it calls its head 0 times"):
        assert CausalLM(model.hf_model).fused_head is None


def test_head_that_is_no_linear_layer_is_named() -> None:
    model = build("llama")
    model.hf_model.set_output_embeddings(torch.nn.Bilinear(2, 2, 2))
    with pytest.raises(ValueError, match=r"its head is Bilinear, not nn\.Linear"):
        CausalLM(model.hf_model, "torch")


def test_head_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    model = build("llama", head="triton")
    with pytest.raises(ValueError, match=r"'triton' cannot run here: .*; use 'auto' or 'torch'"):
        model.require_head(torch.device("cpu"))
    build("llama", head="naive").require_head(torch.device("cpu"))


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
    CausalLM(model.hf_model)
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
    with_logits = model(**arguments(), required=Requirements(logits=True))
    assert with_logits.logits.shape == (2, 12, 64)
    assert_close(model(**arguments()), with_logits)
    assert model(**arguments()).logits is None
    assert CausalLM(model.hf_model, "naive")(**arguments()).logits is None


def test_starts_and_padding_have_no_loss_and_no_entropy() -> None:
    outputs = build("llama")(**arguments())
    unpredicted = (document_positions(DOCUMENT_IDS) == 0) | (DOCUMENT_IDS < 0)
    assert torch.equal(outputs.entropy.isnan(), unpredicted)
    assert not outputs.nll[unpredicted].any()


def test_embedding_rows() -> None:
    assert embedding_rows(build("gpt2").unwrapped) == 64
