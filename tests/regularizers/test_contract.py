"""Every regularizer of the package fulfils the contract."""

import pytest

import regularizers
from regularizers import EntroDrop, Regularizer
from regularizers.discovery import own_regularizers
from regularizers.testing import RegularizerContract
from regularizers.testing.cases import Case, cases_of
from tests.helpers import misfits


class TestEveryRegularizer(RegularizerContract):
    @classmethod
    def cases(cls) -> list[Case]:
        return [case for kind in own_regularizers().values() for case in cases_of(kind)]


def test_discovery_finds_the_package() -> None:
    found = own_regularizers()
    assert found["EntroDrop"] is EntroDrop
    assert "TokenDropout" not in found
    assert "Regularizer" not in found


def test_each_can_be_named_by_the_package() -> None:
    for name, kind in own_regularizers().items():
        assert issubclass(kind, Regularizer)
        assert getattr(regularizers, name) is kind


def test_every_choice_makes_a_case() -> None:
    settings = [case.settings for case in cases_of(EntroDrop)]
    assert {} in settings
    assert {"target": "both"} in settings
    assert {"replacement": "mean_embedding"} in settings
    assert {"scope": "corpus"} in settings


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (misfits.SecretReference, "full_strength_does_something"),
        (misfits.SecretLogits, "full_strength_does_something"),
        (misfits.SecretEntropy, "full_strength_does_something"),
        (misfits.IdlePenalty, "full_strength_changes_the_gradient"),
        (misfits.Everywhere, "tokens_without_a_label_do_not_affect_the_loss"),
        (misfits.AcrossTokens, "parts_have_the_loss_of_the_whole"),
        (misfits.LookAhead, "embeddings_do_not_depend_on_later_tokens"),
        (misfits.Alone, "changes_of_others_to_the_loss_are_kept"),
        (misfits.Negative, "special_and_padded_tokens_are_untouched"),
        (misfits.Counting, "repeated_evaluations_lead_to_the_same_state"),
        (misfits.InPlaceWeight, "arguments_are_not_modified"),
        (misfits.InPlaceTokenLoss, "arguments_are_not_modified"),
        (misfits.InPlaceLoss, "arguments_are_not_modified"),
        (misfits.InPlaceMask, "arguments_are_not_modified"),
    ],
)
def test_what_breaks_the_contract_fails_a_check(kind: type[Regularizer], check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(RegularizerContract(), f"test_{check}")(Case(kind))


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (
            misfits.Weightless,
            "strength_zero_is_plain_training",
            r"strength 0: expected plain training.* got different \['token_weight', 'weight'\]",
        ),
        (misfits.Inert, "full_strength_does_something", "does a hook use self.curriculum"),
        (misfits.IdlePenalty, "full_strength_changes_the_gradient", "entropy_gradient=True"),
        (misfits.InPlaceWeight, "arguments_are_not_modified", "one that modifies token_weight"),
        (
            misfits.Unlike,
            "copies_behave_equally",
            r"copy .* got different \['token_weight', 'weight'\]",
        ),
        (misfits.Counting, "repeated_evaluations_lead_to_the_same_state", r"different \['mean'\]"),
        (misfits.Careless, "bad_strengths_are_refused", r"curriculum=-0.1, got 'no error'"),
        (misfits.Careless, "bad_settings_are_refused_by_name", r"share=nan, got 'no error'"),
        (misfits.Vague, "bad_settings_are_refused_by_name", r"share=nan, got 'out of range'"),
    ],
)
def test_what_fails_says_what_was_expected(
    kind: type[Regularizer], check: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(RegularizerContract(), f"test_{check}")(Case(kind))
