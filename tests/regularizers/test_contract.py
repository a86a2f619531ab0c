"""Every regularizer of the package, found in its own file, keeps the contract."""

import regularizers
from regularizers import EntroDrop, Regularizer
from regularizers.discovery import own_regularizers
from regularizers.testing import RegularizerContract
from regularizers.testing.contract import Case, cases_of


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
