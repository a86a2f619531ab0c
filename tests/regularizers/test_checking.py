import pytest
from torch import Tensor, nn

from regularizers import Constant, EntroDrop, Regularizer, Regularizers, TrainingStep
from regularizers.checking import HOOKS


def test_hooks_are_those_that_are_run() -> None:
    assert {*HOOKS} == {name for name in dir(Regularizers) if name.startswith("on_")}


def test_what_is_no_regularizer_is_refused() -> None:
    with pytest.raises(TypeError, match="got Dropout"):
        Regularizers([EntroDrop(), nn.Dropout()])  # type: ignore[list-item]


def test_base_class_which_does_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a subclass of Regularizer, got the base class"):
        Regularizers([Regularizer()])


class Misspelt(Regularizer):
    def on_tokens_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return token_weight / 2


class Inheriting(Misspelt):
    pass


@pytest.mark.parametrize("kind", [Misspelt, Inheriting])
def test_misspelt_hooks_are_refused(kind: type[Regularizer]) -> None:
    expected = rf"{kind.__name__}\.on_tokens_weight: .*did you mean on_token_weight\?"
    with pytest.raises(ValueError, match=expected):
        Regularizers([kind()])


class Uninitialized(Regularizer):
    def __init__(self) -> None:
        self.curriculum = Constant(0.1)


def test_missing_initialization_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Uninitialized: .*call super\(\).__init__\(\) first"):
        Regularizers([Uninitialized()])


class Bare(Regularizer):
    def __init__(self, curriculum: float) -> None:
        super().__init__()
        self.curriculum = curriculum


@pytest.mark.parametrize("strength", [0, 0.3])
def test_strengths_that_are_numbers_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=rf"Bare\.curriculum: .*got {strength}: .*as_curriculum"):
        Regularizers([Bare(strength)])


class Helped(Regularizer):
    on_average = True

    def _on_halves(self, token_weight: Tensor) -> Tensor:
        return token_weight / 2


def test_other_names_are_free() -> None:
    assert Regularizers([Helped()]).names == ["helped"]
