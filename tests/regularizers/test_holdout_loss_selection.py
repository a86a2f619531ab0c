from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from regularizers import HoldoutLossSelection, Linear, Regularizers, Requirements, TrainingStep
from regularizers.holdout_loss_selection import min_max_weight
from regularizers.testing import make_step, training_loss
from regularizers.testing.steps import slice_rows
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import losses
from tests.helpers.llama import make_llama
from tests.helpers.processes import run_ranks

# One document of each row has no known gain.
STEP = make_step(4, 40)
STEP = replace(
    STEP, holdout_gain=(STEP.holdout_gain - 0.4).masked_fill(STEP.document_ids == 1, torch.nan)
)


def document_weights(step: TrainingStep, strength: float = 1.0) -> dict[tuple[int, int], float]:
    """Weight each document of a step, in float64 and one by one."""
    assert step.holdout_gain is not None
    gains: dict[tuple[int, int], float] = {}
    for row, place in step.valid.nonzero().tolist():
        document = (row, int(step.document_ids[row, place]))
        gains[document] = float(step.holdout_gain[row, place])
    known = [gain for gain in gains.values() if not np.isnan(gain)]
    weights = {}
    for document, gain in gains.items():
        weights[document] = 1.0
        if not np.isnan(gain) and max(known) > min(known):
            scaled = np.interp(gain, [min(known), max(known)], [0, 1])
            weights[document] = (1 - strength) + strength * float(scaled)
    return weights


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_loss_is_the_float64_reference(strength: float) -> None:
    model = make_llama()
    logits = logits_of(model, STEP.input_ids, STEP.document_ids)
    weights = document_weights(STEP, strength)
    terms = [
        (weights[row, int(STEP.document_ids[row, place])], nll)
        for (row, place), nll in losses(logits, STEP).items()
    ]
    expected = np.average([nll for _, nll in terms], weights=[weight for weight, _ in terms])
    assert min(weights.values()) == 1 - strength
    assert training_loss(HoldoutLossSelection(strength), model, STEP).item() == pytest.approx(
        float(expected), rel=1e-5
    )


def test_weights_are_known_before_the_pass_and_carry_no_gradient() -> None:
    regularizers = Regularizers([HoldoutLossSelection()])
    assert not regularizers.reads_outputs
    assert not regularizers.on_token_weight(STEP).requires_grad
    assert regularizers.requirements == Requirements(holdout_neighbors=3)


@pytest.mark.parametrize("gain", [0.3, torch.nan])
def test_equal_and_unknown_gains_are_plain_training(gain: float) -> None:
    model, step = make_llama(), replace(STEP, holdout_gain=torch.full((4, 40), gain))
    plain = Regularizers().mean_loss(first_forward(model, Regularizers(), step), step)
    assert torch.equal(training_loss(HoldoutLossSelection(), model, step), plain)


def test_neither_scale_nor_shift_of_the_gains_matters() -> None:
    assert STEP.holdout_gain is not None
    scaled = replace(STEP, holdout_gain=7 * STEP.holdout_gain - 3)
    weights = [
        HoldoutLossSelection().on_token_weight(STEP.valid.float(), s) for s in (STEP, scaled)
    ]
    torch.testing.assert_close(*weights)


def test_documents_without_a_label_set_no_bound() -> None:
    gain = torch.tensor([[0.0, 0.1, 0.5, 9.0]])
    counted = torch.tensor([[True, True, True, False]])
    assert min_max_weight(gain, counted)[0, :3].tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_curriculum_moves_from_equal_weights_to_the_gains() -> None:
    selection = HoldoutLossSelection(Linear(end=1.0))
    least = [
        selection.on_token_weight(STEP.valid.float(), replace(STEP, progress=progress))[STEP.valid]
        .min()
        .item()
        for progress in (0.0, 0.25, 1.0)
    ]
    assert least == pytest.approx([1.0, 0.75, 0.0])


def test_gains_and_weights_are_logged() -> None:
    step = replace(STEP, metrics={})
    Regularizers([HoldoutLossSelection()]).on_token_weight(step)
    weights = document_weights(STEP)
    of_tokens = [weights[r, int(STEP.document_ids[r, t])] for r, t in STEP.valid.nonzero().tolist()]
    logged = step.metrics["holdout_loss_selection/weight"].item()
    assert logged == pytest.approx(np.mean(of_tokens), rel=1e-5)
    assert step.metrics["holdout_loss_selection/gain"].isfinite()


def weigh_on_rank(rank: int, folder: Path) -> None:
    def gather(values: Tensor) -> Tensor:
        gathered = [torch.empty_like(values) for _ in range(2)]
        dist.all_gather(gathered, values)
        return torch.cat(gathered)

    # The second rank also has a batch of padding, in which it must still call gather.
    for number, rows in enumerate([slice(0, 2), slice(2, 4)] if rank == 0 else [slice(2, 4)] * 2):
        step = replace(slice_rows(STEP, rows), gather=gather)
        if rank and number:
            step = replace(step, document_ids=torch.full_like(step.document_ids, -1))
        weight = HoldoutLossSelection().on_token_weight(step.valid.float(), step)
        torch.save(weight, folder / f"weight-{rank}-{number}.pt")


def test_two_ranks_weigh_as_one(tmp_path: Path) -> None:
    run_ranks(weigh_on_rank, tmp_path, tmp_path)
    together = HoldoutLossSelection().on_token_weight(STEP.valid.float(), STEP)
    halves = [torch.load(tmp_path / f"weight-{rank}-0.pt") for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), together)
    alone = slice_rows(STEP, slice(2, 4))
    weight = HoldoutLossSelection().on_token_weight(alone.valid.float(), alone)
    assert torch.equal(torch.load(tmp_path / "weight-0-1.pt"), weight)
    assert not torch.load(tmp_path / "weight-1-1.pt").any()


def test_different_numbers_of_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one number of holdout neighbors .* got 3 of \w+, 1 of"):
        Regularizers([HoldoutLossSelection(), HoldoutLossSelection(neighbors=1)])


def test_bad_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbors: expected at least 1, got 0"):
        HoldoutLossSelection(neighbors=0)


def test_missing_gains_are_refused() -> None:
    step = provide(make_llama(), Regularizers(), replace(STEP, holdout_gain=None))
    with pytest.raises(ValueError, match=r"requires TrainingStep.holdout_gain, got None"):
        Regularizers([HoldoutLossSelection()]).on_token_weight(step)
