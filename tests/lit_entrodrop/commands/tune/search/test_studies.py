"""Studies in their file: equal numbers of trials, pruning, and what a killed search leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.search.studies import OpenTrial, Studies, require_optuna
from lit_entrodrop.commands.tune.space.space import parse_space

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 4},
    "model": {"optimizer": {"init_args": {"lr": 0.1}}},
}
SPACE = parse_space(
    {
        "plain": {"trainer.max_epochs": {"low": 2, "high": 9}},
        "methods": {"none": [], "noise": {"strengths": {"model.noise": {"low": 0.1, "high": 0.9}}}},
    }
)


def end(studies: Studies, opened: OpenTrial, **outcome: Any) -> None:
    default = TrialOutcome("", 0, "finished", opened.sample, score=3.0, seconds=2.0, steps=8)
    studies.finish(opened, replace(default, **outcome))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[OpenTrial]]:
    """A search that was killed while its sixth trial was running; the fifth has failed."""
    folder = tmp_path_factory.mktemp("search")
    studies = Studies(folder, SPACE, CONFIG)
    opened = []
    for number in range(6):
        opened.append(studies.ask())
        if number < 4:
            losses = [(tenth, 3.0 - tenth / 10) for tenth in range(1, 11)]
            assert not studies.report(opened[-1], losses)
            end(studies, opened[-1], score=2.0 + number)
    end(studies, opened[4], state="failed", score=None)
    studies.set_seconds(60.0)
    return folder, opened


def test_first_trials_have_the_values_of_the_config(
    killed: tuple[Path, list[OpenTrial]],
) -> None:
    _, opened = killed
    assert [each.name for each in opened[:4]] == [
        "plain-000",
        "methods-000",
        "plain-001",
        "methods-001",
    ]
    first = [each.sample for each in opened[:2]]
    assert [sample.plain["trainer.max_epochs"] for sample in first] == [4, 4]
    assert [sample.label for sample in first] == ["plain", "noise"]


def test_killed_search_continues(killed: tuple[Path, list[OpenTrial]]) -> None:
    folder, opened = killed
    studies = Studies(folder, SPACE, CONFIG)
    assert studies.seconds == 60.0
    before = {each.name: each for each in studies.outcomes()}
    assert [each.score for each in before.values() if each.state == "finished"] == [2, 4, 3, 5]
    again = [studies.ask() for _ in range(2)]
    # Those that have failed or died, with the same values, in the same folders.
    assert {each.name for each in again} == {opened[4].name, opened[5].name}
    for each in again:
        earlier = next(other for other in opened if other.name == each.name)
        assert each.sample == earlier.sample
        end(studies, each)
    states = [each.state for each in studies.outcomes()]
    assert states == ["finished"] * 6
    assert studies.ask().name == "plain-003"


def test_run_that_gets_worse_than_the_others_is_pruned(
    killed: tuple[Path, list[OpenTrial]],
) -> None:
    studies = Studies(killed[0], SPACE, CONFIG)
    rising, falling = (replace_study(studies, losses) for losses in ([3.5, 3.6, 3.7], [9, 8, 7]))
    assert (rising, falling) == (True, False)


def test_run_that_has_just_improved_or_ended_is_not_pruned(
    killed: tuple[Path, list[OpenTrial]],
) -> None:
    studies = Studies(killed[0], SPACE, CONFIG)
    # At the second evaluation of three, the first one counts for several tenths.
    assert not replace_study(studies, [3.5, 3.6, 3.6, 3.4])
    assert not replace_study(studies, [3.5, 3.6, 3.6, 3.7, 3.7, 3.8, 3.9])


def replace_study(studies: Studies, losses: list[float]) -> bool:
    opened = studies.ask()
    while opened.study is not studies.plain:
        end(studies, opened)
        opened = studies.ask()
    for _ in range(3):
        other = studies.ask()
        end(studies, other)
    return studies.report(opened, list(enumerate(losses, start=4)))


def test_other_config_or_space_is_refused(killed: tuple[Path, list[OpenTrial]]) -> None:
    config = {**CONFIG, "trainer": {"max_epochs": 5}}
    with pytest.raises(ValueError, match=r"but trainer\.max_epochs is 5, not 4: change it back"):
        Studies(killed[0], SPACE, config)
    space = replace(SPACE, plain={})
    with pytest.raises(ValueError, match="expected the space with which the search"):
        Studies(killed[0], space, CONFIG)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_entrodrop.commands.tune.search.studies.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'lit-entrodrop\[tune\]'"):
        require_optuna()
