"""Losses that the head evaluates part by part agree with those over the outputs of all tokens."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.training import passes
from regularizers import (
    EAFT,
    MIR,
    ConfidencePenalty,
    Flooding,
    Focal,
    GeneralizedCrossEntropy,
    Goldfish,
    HighEntropyExclusion,
    LabelSmoothing,
    Outputs,
    RDrop,
    ReferenceKL,
    Regularizer,
    Regularizers,
    Requirements,
    Rho1,
    TokenLoss,
    TrainingStep,
    WaveBound,
    ZLoss,
)
from regularizers.functional import document_positions, masked_mean
from regularizers.testing import make_step
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.llama import make_llama


class Trusted(Regularizer):
    """Weights each loss by the likelihood of the label under the frozen models."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(reference=True, teacher=0.9, reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        assert step.reference is not None
        assert step.teacher is not None
        trust = (-step.reference().nll - step.teacher().nll).exp()
        step.log("trust", masked_mean(trust, step.valid))
        known = step.entropy if step.entropy is not None else torch.zeros_like(trust)
        return replace(token_loss, loss=token_loss.loss * (trust + step.input_ids + known))


LOSSES: dict[str, list[Regularizer]] = {
    "Focal": [Focal()],
    "EAFT": [EAFT()],
    "LabelSmoothing": [LabelSmoothing()],
    "GeneralizedCrossEntropy": [GeneralizedCrossEntropy(0.7)],
    "ZLoss": [ZLoss(0.1)],
    "ConfidencePenalty": [ConfidencePenalty()],
    "Flooding": [Flooding(level=9.0)],
    "WaveBound": [WaveBound(0.7, epsilon=0.0)],
    "ReferenceKL": [ReferenceKL(0.5)],
    "RDrop": [RDrop()],
    "MIR": [MIR(kept_prefix=1)],
    "frozen": [Trusted()],
    "weighted": [
        Goldfish(0.5, context=2),
        Focal(),
        LabelSmoothing(),
        ZLoss(0.1),
        ConfidencePenalty(),
        Flooding(level=9.0),
    ],
    "bounded": [EAFT(), GeneralizedCrossEntropy(), WaveBound(0.7), Flooding(level=0.1)],
    "with reference": [LabelSmoothing(), ReferenceKL(), ZLoss(0.1), Flooding(level=9.0)],
    "two passes": [Focal(), RDrop(0.5), LabelSmoothing(), ZLoss(0.1)],
    "three passes": [Focal(), RDrop(0.5), MIR(kept_prefix=1)],
}
# By name: whether regularizers transform the loss as a whole.
TRANSFORMED = [
    "Flooding",
    "WaveBound",
    "MIR",
    "weighted",
    "bounded",
    "with reference",
    "three passes",
]


def make_causal_lm(dtype: torch.dtype, model: Any = None) -> CausalLM:
    model = make_llama() if model is None else model
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.3
    return CausalLM(model.to(dtype), "torch", head_chunk_size=7)


@cache
def frozen_model(dtype: torch.dtype) -> CausalLM:
    return CausalLM(cast(Any, make_llama(seed=1)).to(dtype), "torch").requires_grad_(False)


def batch_of(step: TrainingStep) -> dict[str, Tensor]:
    return {
        "input_ids": step.input_ids,
        "labels": step.labels,
        "document_ids": step.document_ids,
        "position_ids": document_positions(step.document_ids),
    }


def run(
    causal_lm: CausalLM,
    regularizers: Sequence[Regularizer],
    in_parts: bool,
    skipped: bool = False,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return loss, weight, outputs and gradients of a step, and its metrics."""
    step = make_step(rows=2, length=12)
    batch = batch_of(step)
    if skipped:
        batch["unregularized"] = torch.tensor([False, True])
    all_of_them = Regularizers(regularizers)
    assert all_of_them.reads_parts == bool(regularizers)
    all_of_them.reads_parts &= in_parts
    other = frozen_model(next(causal_lm.parameters()).dtype)
    score = partial(score_clean, other, required=all_of_them.requirements)
    labels, document_ids = passes.tokens_to_regularize(batch)[1:]
    # As in a fit, dropout differs between two passes, and is the same in both ways.
    torch.manual_seed(0)
    step = replace(
        step,
        labels=labels,
        document_ids=document_ids,
        reference=cache(partial(score, batch)),
        teacher=partial(score, batch),
    )
    causal_lm.zero_grad()
    outputs, loss, weight = passes.regularized_loss(causal_lm, all_of_them, batch, step, score)
    assert (outputs.weighted_loss is not None) == (in_parts or not regularizers)
    loss.backward()
    gradients = [each.grad for each in causal_lm.parameters() if each.requires_grad]
    statistics = outputs.nll, outputs.entropy, outputs.logsumexp
    return [loss, weight, *statistics, *gradients], step.metrics  # type: ignore[list-item]


def assert_same(causal_lm: CausalLM, name: str, tolerance: float, **options: Any) -> None:
    # In train mode the second pass of R-Drop would draw other dropout than in the other way.
    (actual, metrics), (expected, others) = (
        run(causal_lm, LOSSES[name], in_parts, **options) for in_parts in (True, False)
    )
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance, equal_nan=True)
    for one, other in zip(actual, expected, strict=True):
        scale = other.detach().nan_to_num().abs().max().clamp(min=1)
        close(one / scale, other / scale)
    assert metrics.keys() == others.keys()
    for metric in metrics:
        close(metrics[metric].double(), others[metric].double())


@pytest.mark.parametrize("name", LOSSES)
def test_both_ways_agree_in_float64(name: str) -> None:
    assert_same(make_causal_lm(torch.float64), name, 1e-10)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in TRANSFORMED])
def test_rows_that_regularizers_skip_keep_their_plain_loss(name: str) -> None:
    assert_same(make_causal_lm(torch.float64), name, 1e-10, skipped=True)


@pytest.mark.parametrize("name", ["weighted", "two passes"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_both_ways_agree_in_other_precisions(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    assert_same(make_causal_lm(dtype), name, tolerance)


def flops(causal_lm: CausalLM, *regularizers: Regularizer) -> int:
    with FlopCounterMode(display=False) as counter:
        run(causal_lm, regularizers, in_parts=True)
    return int(counter.get_total_flops())


def test_operations_of_a_step_are_those_of_its_passes() -> None:
    causal_lm, batch = make_causal_lm(torch.float32), batch_of(make_step(rows=2, length=12))
    frozen_model(torch.float32)
    plain = flops(causal_lm)
    with FlopCounterMode(display=False) as counter:
        score_clean(causal_lm, batch)
    forward = counter.get_total_flops()
    local = "Focal", "EAFT", "LabelSmoothing", "GeneralizedCrossEntropy", "ZLoss"
    for name in (*local, "ConfidencePenalty", "Flooding", "weighted"):
        assert flops(causal_lm, *LOSSES[name]) == plain, name
    for name in ("bounded", "with reference"):
        assert flops(causal_lm, *LOSSES[name]) == plain + forward, name
    for name in ("MIR", "two passes"):
        assert flops(causal_lm, *LOSSES[name]) == 2 * plain, name
    assert flops(causal_lm, RDrop(0.0)) == plain, "at strength 0 there is no second pass"


@pytest.mark.parametrize(
    "regularizers",
    [
        [Rho1()],
        [HighEntropyExclusion(), Focal()],
        [Flooding(level=1.0), ZLoss()],
        [MIR(), Focal()],
        [RDrop(), ReferenceKL()],
        [RDrop(), EAFT()],
        [ReferenceKL(), ConfidencePenalty()],
        [],
    ],
)
def test_other_combinations_take_the_outputs_of_all_tokens(
    regularizers: list[Regularizer],
) -> None:
    assert not Regularizers(regularizers).reads_parts


def test_a_local_loss_that_changes_weights_is_refused() -> None:
    class Reweighted(Focal):
        def on_token_loss(
            self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
        ) -> TokenLoss:
            return replace(token_loss, weight=token_loss.weight * outputs.nll.detach())

    with pytest.raises(ValueError, match=r"reweighted: expected on_token_loss to keep the weights"):
        run(make_causal_lm(torch.float32), [Reweighted()], in_parts=True)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "llama"])
def test_soft_caps_scales_and_adapters_of_the_head_count(name: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **ARCHITECTURES[name])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if name == "llama":
        model = get_peft_model(
            model, LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
        )
    for combined in ("weighted", "two passes"):
        assert_same(make_causal_lm(torch.float64, model=model), combined, 1e-10)
