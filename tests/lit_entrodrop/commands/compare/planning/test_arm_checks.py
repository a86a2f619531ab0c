import re
from typing import Any

import pytest

from lit_entrodrop.commands.compare.planning.arm_checks import check_arms
from tests.lit_entrodrop.commands.compare.planning.test_planned_run import ENTRODROP, plan


def regularizer(**settings: Any) -> list[dict[str, Any]]:
    method = {"class_path": "regularizers.EntroDrop", "init_args": settings}
    return [{"model": {"regularizers": [method]}}]


REPEATING = {"class_path": "lit_entrodrop.data.orders.LearnFocusReview"}
NESTEROV = {"class_path": "torch.optim.SGD", "init_args": {"nesterov": True}}
BAD = {
    "setting": (regularizer(quantile=3), r"arms.bad: EntroDrop quantile: .* got 3\.0"),
    "strength": (
        {"configs": regularizer(), "strengths": {"quantile": [0.5, 7.0]}},
        r"arms.bad at quantile=7.0: .* got 7\.0",
    ),
    "optimizer": (
        [{"model": {"optimizer": {"init_args": {"lr": -1.0}}}}],
        "arms.bad: .*learning rate.*-1",
    ),
    "plug-in": (
        [{"model": {"optimizer": NESTEROV}}],
        "arms.bad: .*Nesterov momentum",
    ),
    "combination": (
        [*regularizer(), {"data": {"order": REPEATING}}],
        "arms.bad: data.order: expected an order that reads each block once",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arm_is_named_before_any_trains(name: str) -> None:
    arm, expected = BAD[name]
    with pytest.raises(ValueError, match=re.compile(expected, re.IGNORECASE)):
        check_arms(plan({"bad": arm}))


def test_good_arms_are_accepted() -> None:
    check_arms(plan({"entrodrop": ENTRODROP}, seeds=[0, 1]))
