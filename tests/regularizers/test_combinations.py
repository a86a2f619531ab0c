"""Any two regularizers of the package run together, or are refused before training."""

import re
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from lit_entrodrop.commands.regularizers.combinations import take_step, why_refused
from regularizers import (
    EmbeddingDropout,
    EntroDrop,
    Regularizer,
    Regularizers,
    Requirements,
    TrainingStep,
)
from regularizers.discovery import own_regularizers
from regularizers.testing.steps import VOCABULARY


class OnlineEntropy(Regularizer):
    """Requires another entropy source than EntroDrop."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(entropy="online")


class Late(Regularizer):
    """Fails after the checks before training."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        raise KeyError("late")


def refusal(first: type[Regularizer], second: type[Regularizer]) -> str | None:
    """Return the error before training, if any."""
    try:
        Regularizers([first(), second()]).check(VOCABULARY)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("first", own_regularizers().values(), ids=own_regularizers())
def test_each_pair_takes_a_step_or_is_refused_at_once(first: type[Regularizer]) -> None:
    for second in own_regularizers().values():
        reason = refusal(first, second)
        if reason is not None:
            assert first.__name__ in reason
            assert second.__name__ in reason
            assert re.search(r": (give|use|set|choose|keep|remove|name|leave|take)\b", reason)
            continue
        for name, parameter in take_step(Regularizers([first(), second()])).named_parameters():
            told = f"{first.__name__} + {second.__name__}: {name}"
            assert parameter.grad is not None, told
            assert parameter.grad.isfinite().all(), told
            assert parameter.grad.any(), told


def test_pair_is_refused_for_what_its_members_say() -> None:
    reason = why_refused(EntroDrop, OnlineEntropy)
    assert reason == refusal(EntroDrop, OnlineEntropy)
    assert reason is not None
    assert "last_epoch of EntroDrop, online of OnlineEntropy" in reason
    assert "give them the same entropy_source" in reason


def test_what_fails_in_a_step_does_not_count_as_composing() -> None:
    assert why_refused(EmbeddingDropout, Late) == "a training step raised KeyError: 'late'"


@pytest.mark.parametrize("error", [KeyError("check"), SystemExit("check")])
def test_whatever_a_check_raises_is_told(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(Late, "check", Mock(side_effect=error))
    told = why_refused(EmbeddingDropout, Late)
    assert told is not None
    assert told.startswith(f"building both raised {type(error).__name__}: ")


def test_step_of_two_differs_from_that_of_one() -> None:
    alone, both = (
        take_step(Regularizers(kinds)).head.grad
        for kinds in ([EmbeddingDropout()], [EmbeddingDropout(), EntroDrop()])
    )
    assert alone is not None
    assert both is not None
    assert not torch.equal(alone, both)
