import re
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.compare.planning.ladder import parse_ladder
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.planning.rungs import check_epochs, check_sizes, plan_rungs


def planned(arm: str, **trainer: Any) -> PlannedRun:
    config = {"trainer": {"max_epochs": 3, **trainer}, "data": {"max_train_tokens": None}}
    return PlannedRun(arm, {}, 0, Path("out", arm, "seed=0"), config)


def test_baseline_has_all_rungs_and_other_arms_one() -> None:
    whole = [planned("plain"), planned("a")]
    runs = plan_rungs(whole, "plain", parse_ladder([0.25, 0.5, 1]), tokens=1001)
    assert [(run.arm, run.share) for run in runs] == [("plain", 0.25), ("plain", 0.5), ("a", 0.5)]
    assert [run.config["data"]["max_train_tokens"] for run in runs] == [250, 500, 500]
    assert str(runs[0].folder) == "out/plain/ladder=0.25/seed=0"
    assert runs[0].config["trainer"]["default_root_dir"] == str(runs[0].folder)
    assert whole[0].config["data"]["max_train_tokens"] is None
    on_all = plan_rungs(whole, "plain", parse_ladder([0.5, 1], at=1), tokens=1000)
    assert [run.arm for run in on_all] == ["plain"]


def test_close_shares_have_folders_of_their_own() -> None:
    ladder = parse_ladder([0.25, 0.2500001, 1])
    runs = plan_rungs([planned("plain")], "plain", ladder, tokens=10**9)
    assert len({run.folder for run in runs}) == 2


def test_shares_with_the_same_documents_are_an_error() -> None:
    ladder = parse_ladder([0.5, 0.6, 1])
    check_sizes(ladder, [50, 60, 100])
    with pytest.raises(ValueError, match=re.escape("got [50, 50, 100] for [0.5, 0.6, 1.0]")):
        check_sizes(ladder, [50, 50, 100])


@pytest.mark.parametrize(
    ("trainer", "found"),
    [
        ({"max_steps": 100}, "got trainer.max_steps: 100"),
        ({"max_epochs": None}, "got no trainer.max_epochs"),
        ({"limit_train_batches": 0.5}, "got trainer.limit_train_batches: 0.5"),
    ],
)
def test_training_must_end_with_an_epoch(trainer: dict[str, Any], found: str) -> None:
    check_epochs(planned("plain", max_steps=-1, limit_train_batches=None))
    with pytest.raises(ValueError, match=re.escape(found)):
        check_epochs(planned("plain", **trainer))
