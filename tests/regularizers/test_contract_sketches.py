"""Other families of regularizers fit the contract: each sketched as a user would write a plug-in.

Each is compared with a float64 computation on a real decoder, and held to the shared contract.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn

from regularizers import (
    Curriculum,
    EntroDrop,
    Outputs,
    Regularizer,
    Regularizers,
    Requirements,
    TokenLoss,
    TrainingStep,
    Vocabulary,
)
from regularizers.curricula import as_curriculum, require_probability
from regularizers.functional import is_lowest_share
from tests.helpers.loop import first_forward, logits_of, make_llama, positions, provide
from tests.helpers.steps import MASK_ID, make_step
from tests.regularizers.contract import CHECKS, Case, cases_of


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


class NEFTune(Regularizer):
    """Add uniform noise of magnitude α/√(L·D) to the embeddings."""

    def __init__(self, curriculum: Curriculum | float = 5.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        generator = step.generator()
        noise = torch.rand(embeddings.shape, generator=generator, device=generator.device) * 2 - 1
        lengths = (step.document_ids >= 0).sum(1).clamp(min=1)[:, None, None]
        scale = self.curriculum(step.progress) / (lengths * embeddings.shape[-1]).sqrt()
        noise = torch.where(step.alterable[..., None], noise * scale, 0.0)
        return embeddings + noise.to(embeddings.dtype)


class RDrop(Regularizer):
    """Penalise the symmetric KL divergence between two passes under dropout."""

    def __init__(self, curriculum: Curriculum | float = 1.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        return Requirements(second_forward=True, divergence=True)

    def on_penalty(self, outputs: Outputs, step: TrainingStep) -> Tensor | None:
        assert step.second_forward is not None
        again = step.second_forward()
        divergence = (outputs.kl_divergence(again) + again.kl_divergence(outputs)) / 2
        return self.curriculum(step.progress) * masked_mean(divergence, step.valid)


class Rho1(Regularizer):
    """Leave out of the loss the share of tokens of lowest excess over the reference model."""

    def __init__(self, curriculum: Curriculum | float = 0.4) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("Rho1 curriculum", self.curriculum)

    @property
    def requirements(self) -> Requirements:
        return Requirements(reference=True)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        assert step.reference is not None
        excess = outputs.nll.detach() - step.reference().nll
        share = self.curriculum(step.progress)
        left_out = is_lowest_share(excess, step.valid, torch.zeros_like(step.labels), share)
        return replace(token_loss, weight=token_loss.weight.masked_fill(left_out, 0.0))


class ZLoss(Regularizer):
    """Penalise the squared log-partition."""

    def __init__(self, curriculum: Curriculum | float = 1e-4) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    def on_penalty(self, outputs: Outputs, step: TrainingStep) -> Tensor | None:
        return self.curriculum(step.progress) * masked_mean(outputs.logsumexp.square(), step.valid)


class MIR(Regularizer):
    """Add the loss of a second pass on masked inputs; masked share U(0, 0.5), per row."""

    def __init__(self, curriculum: Curriculum | float = 0.4) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        return Requirements(second_forward=True)

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        if vocabulary.mask_id is None:
            raise ValueError("MIR needs a tokenizer with a mask token")

    def masked_ids(self, step: TrainingStep) -> Tensor:
        generator, shape = step.generator(), step.input_ids.shape
        rates = torch.rand((shape[0], 1), generator=generator, device=generator.device) / 2
        masked = torch.rand(shape, generator=generator, device=generator.device) < rates
        masked[:, :8] = False
        assert step.vocabulary.mask_id is not None
        return step.input_ids.masked_fill(masked & step.alterable, step.vocabulary.mask_id)

    def on_penalty(self, outputs: Outputs, step: TrainingStep) -> Tensor | None:
        assert step.second_forward is not None
        second = step.second_forward(self.masked_ids(step))
        return self.curriculum(step.progress) * masked_mean(second.nll, step.valid)


class Flooding(Regularizer):
    """Keep the mean loss L above a level: |L − b| + b, interpolated by the strength."""

    def __init__(self, curriculum: Curriculum | float = 1.0, level: float = 30.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("Flooding curriculum", self.curriculum)
        if not level >= 0:
            raise ValueError(f"Flooding level: expected a loss >= 0, got {level}")
        self.level = level

    def on_penalty(self, outputs: Outputs, step: TrainingStep) -> Tensor | None:
        below = (self.level - masked_mean(outputs.nll, step.valid)).relu()
        return 2 * self.curriculum(step.progress) * below


SKETCHES: list[type[Regularizer]] = [NEFTune, RDrop, Rho1, ZLoss, MIR, Flooding]


@pytest.mark.parametrize("case", [case for kind in SKETCHES for case in cases_of(kind)], ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sketch_keeps_the_contract(check: Callable[[Case], None], case: Case) -> None:
    check(case)


def log_probabilities(logits: Tensor) -> np.ndarray[Any, Any]:
    """Return ln p(· | x_<t) in float64 at t, row 0 unused."""
    rows = scipy.special.log_softmax(logits.detach().double().numpy(), axis=-1)
    return np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)


def valid_tokens(step: TrainingStep) -> list[tuple[int, int]]:
    return [(row, place) for row, place in (step.labels != -100).nonzero().tolist()]


def losses(logits: Tensor, step: TrainingStep) -> dict[tuple[int, int], float]:
    """Return −ln p of each valid token in float64."""
    rows = log_probabilities(logits)
    return {
        (row, place): -float(rows[row, place, int(step.labels[row, place])])
        for row, place in valid_tokens(step)
    }


def mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def training_loss(
    regularizer: Regularizer, model: nn.Module, step: TrainingStep, reference: nn.Module | None
) -> float:
    regularizers = Regularizers([regularizer])
    regularizers.check(step.vocabulary)
    step = provide(model, regularizers, step, reference)
    return float(regularizers.mean_loss(first_forward(model, regularizers, step), step).detach())


def test_neftune_against_float64() -> None:
    model, step, alpha = make_llama(layers=2), make_step(), 50.0
    noise = torch.rand((3, 24, 16), generator=step.generator()).double().numpy() * 2 - 1
    embeddings = model.get_input_embeddings()(step.input_ids).detach().double().numpy()
    for row in range(3):
        length = int((step.document_ids[row] >= 0).sum())
        for place in range(24):
            if bool(step.alterable[row, place]):
                embeddings[row, place] += alpha / np.sqrt(length * 16) * noise[row, place]
    logits = model.double()(
        inputs_embeds=torch.from_numpy(embeddings),
        position_ids=positions(step.document_ids),
        attention_mask=None,
        use_cache=False,
    ).logits
    expected = mean(list(losses(logits, step).values()))
    actual = training_loss(NEFTune(alpha), model.float(), step, None)
    assert actual == pytest.approx(expected, abs=1e-5)
    assert actual != pytest.approx(training_loss(NEFTune(0.0), model, step, None), abs=1e-2)


def test_rdrop_against_float64() -> None:
    model, step, alpha = make_llama(layers=2), make_step(), 3.0
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    torch.manual_seed(5)
    first, second = (logits_of(model, step.input_ids, step.document_ids) for _ in range(2))
    p, q = np.exp(log_probabilities(first)), np.exp(log_probabilities(second))
    divergences = [
        (scipy.stats.entropy(p[at], q[at]) + scipy.stats.entropy(q[at], p[at])) / 2
        for at in valid_tokens(step)
    ]
    expected = mean(list(losses(first, step).values())) + alpha * mean(divergences)
    torch.manual_seed(5)
    assert training_loss(RDrop(alpha), model, step, None) == pytest.approx(expected, abs=1e-5)
    assert mean(divergences) > 1e-3


def test_rho1_against_float64() -> None:
    model, reference, step = make_llama(), make_llama(seed=1), make_step()
    ours, theirs = (
        losses(logits_of(each, step.input_ids, step.document_ids), step)
        for each in (model, reference)
    )
    ranked = sorted(ours, key=lambda at: ours[at] - theirs[at])
    kept = ranked[int(0.4 * len(ranked)) :]
    expected = mean([ours[at] for at in kept])
    assert training_loss(Rho1(0.4), model, step, reference) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(mean(list(ours.values())), abs=1e-2)


def test_z_loss_against_float64() -> None:
    model, step = make_llama(), make_step()
    logits = logits_of(model, step.input_ids, step.document_ids)
    partitions = scipy.special.logsumexp(logits.detach().double().numpy(), axis=-1)
    squares = [partitions[row, place - 1] ** 2 for row, place in valid_tokens(step)]
    expected = mean(list(losses(logits, step).values())) + 0.1 * mean(squares)
    assert training_loss(ZLoss(0.1), model, step, None) == pytest.approx(expected, abs=1e-5)


def test_mir_against_float64() -> None:
    model, step = make_llama(), make_step()
    masked = MIR().masked_ids(step)
    assert (masked == MASK_ID).any()
    assert torch.equal(masked[:, :8], step.input_ids[:, :8])
    clean, noisy = (
        list(losses(logits_of(model, ids, step.document_ids), step).values())
        for ids in (step.input_ids, masked)
    )
    actual = training_loss(MIR(0.4), model, step, None)
    assert actual == pytest.approx(mean(clean) + 0.4 * mean(noisy), abs=1e-5)


@pytest.mark.parametrize("level", [0.5, 30.0])
def test_flooding_is_the_published_formula(level: float) -> None:
    model, step = make_llama(), make_step()
    logits = logits_of(model, step.input_ids, step.document_ids)
    plain = mean(list(losses(logits, step).values()))
    actual = training_loss(Flooding(1.0, level), model, step, None)
    assert actual == pytest.approx(abs(plain - level) + level, abs=1e-4)


def test_families_compose() -> None:
    model, reference, step = make_llama(), make_llama(seed=1), make_step()
    together = Regularizers([EntroDrop(curriculum=0.8), NEFTune(5.0), Rho1(0.4), ZLoss(0.1), MIR()])
    assert together.requirements == Requirements("last_epoch", True, True)
    provided = provide(model, together, step, reference)
    outputs = first_forward(model, together, provided)
    loss = together.mean_loss(outputs, provided)
    weight = together.on_token_loss(outputs, provided).weight
    kept = weight > 0
    assert int(kept.sum()) == len(valid_tokens(step)) - int(0.4 * len(valid_tokens(step)))
    own = replace(provided, stream=4)  # MIR is the fifth of the list
    penalties = (ZLoss(0.1).on_penalty(outputs, own), MIR().on_penalty(outputs, own))
    assert penalties[0] is not None
    assert penalties[1] is not None
    torch.testing.assert_close(loss, outputs.nll[kept].mean() + penalties[0] + penalties[1])
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
