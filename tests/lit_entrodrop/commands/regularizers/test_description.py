from dataclasses import fields
from typing import Any

import pytest
import yaml

from lit_entrodrop.commands.regularizers.description import describe
from lit_entrodrop.commands.regularizers.showing import cost_of
from regularizers import (
    Curriculum,
    EmbeddingDropout,
    EntroDrop,
    Regularizer,
    Requirements,
    Rho1,
    Sigmoid,
    ZLoss,
)

SIGMOID = Sigmoid(max=0.3)


class Costly(Regularizer):
    """Ask for everything.

    Args:
        curriculum: its strength.
        heads: how many.
    """

    def __init__(self, curriculum: Curriculum = SIGMOID, heads: int | None = None) -> None:
        super().__init__()
        self.curriculum = curriculum

    @property
    def requirements(self) -> Requirements:
        flags: dict[str, Any] = {
            field.name: True for field in fields(Requirements) if field.default is False
        }
        return Requirements("online", teacher=0.99, holdout_neighbors=2, top_entropy=20, **flags)


def test_costs_and_needs_follow_from_the_requirements() -> None:
    costly = describe(Costly, "tests.Costly", "tests", "1")
    assert (costly.gradient_passes, costly.frozen_passes, costly.model_copies) == (2, 3, 3)
    # What the hooks read is a cost.
    assert len(costly.needs) == len(fields(Requirements)) - 1
    assert "a teacher (decay 0.99)" in costly.needs
    assert costly.strength == pytest.approx((0.3 / (1 + 148.4), 0.3 / (1 + 0.0067)), rel=1e-3)
    plain = describe(EmbeddingDropout, "regularizers.EmbeddingDropout", "x", "1")
    assert (plain.gradient_passes, plain.frozen_passes, plain.model_copies) == (1, 0, 0)
    assert (plain.needs, plain.acts_on) == ((), ("embeddings",))
    assert plain.strength == (0.1, 0.1)
    costs = [
        cost_of(describe(kind, kind.__name__, "x", "1")) for kind in (EmbeddingDropout, ZLoss, Rho1)
    ]
    frozen = "1 pass + 1 without gradient + 1 copy of the model, logits twice"
    assert costs == ["1 pass", "1 pass", frozen]


def test_settings_are_those_of_the_class() -> None:
    described = describe(EntroDrop, "regularizers.EntroDrop", "x", "1")
    settings = {each.name: each for each in described.settings}
    assert settings["target"].choices == ("input", "loss", "both")
    assert settings["curriculum"].default["class_path"] == "regularizers.Sigmoid"
    assert settings["quantile"].default == 0.5
    assert all(each.help for each in described.settings)


def test_what_no_file_can_hold_is_left_to_the_default() -> None:
    # jsonargparse cannot tell how a variable was made.
    costly = describe(Costly, "tests.Costly", "tests", "1")
    assert costly.block.splitlines()[3:] == ["    init_args:", "      heads: null"]


def test_block_holds_the_companions() -> None:
    beside = {"data": {"holdout": 0.1}, "model": {"lm": {"dropout": {"hidden": 0.1}}}}
    described = describe(EmbeddingDropout, "EmbeddingDropout", "x", "1", beside)
    block = yaml.safe_load(described.block)
    [entry] = block["model"].pop("regularizers+")
    assert (entry["class_path"], block) == ("EmbeddingDropout", beside)
