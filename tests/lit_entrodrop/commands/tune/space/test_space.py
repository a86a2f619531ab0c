"""Spaces: what is refused, and what depends on the config."""

from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.tune.space.space import parse_space, read_space
from tests.helpers.tuning import SPACE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {"none": []}}, "methods: expected at least one that changes something"),
        ({"method": {}}, "space: expected additions, methods, plain, got method"),
        ({"plain": {"trainer.max_epochs": 4}}, "plain.trainer.max_epochs: expected a list of"),
        ({"plain": {"a.b": {"low": 2, "high": 1}}}, "numbers with low < high, got 2 and 1"),
        ({"plain": {"a.b": {"low": 0, "high": 1, "log": True}}}, "expected low > 0"),
        ({"plain": {"a.b": {"low": 0, "high": 1, "step": 1}}}, "low, high and, optionally, log"),
        ({"plain": {"a.b": [1]}}, "at least two different values"),
        ({"methods": {"a": ["none.yaml"]}}, "found no none.yaml"),
        ({"methods": {"a": {"strength": {}}}}, "`configs` and `strengths`, got the keys"),
        ({"additions": {"average": {"a": 3}}}, "expected config files or mappings, got 3"),
    ],
)
def test_wrong_space_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_space({**SPACE, **change})


def test_ranges_depend_on_the_config() -> None:
    config: dict[str, Any] = {"model": {"optimizer": {"init_args": {"lr": 0.1}}}, "data": {}}
    space = parse_space(SPACE).around(config)
    low, high = space.plain["model.optimizer.init_args.lr"].ends
    assert (low, high) == pytest.approx((0.03, 0.3))
    assert space.start(config)["model.optimizer.init_args.lr"] == 0.1
    # Replay is searched only where it is configured.
    assert not space.settings
    config["data"] = {"replay": {"share": 0.1}}
    assert list(parse_space(SPACE).around(config).settings) == ["data.replay.share"]
    del config["model"]["optimizer"]
    with pytest.raises(ValueError, match="a positive number in the config"):
        parse_space(SPACE).around(config)


def test_corners_have_every_alternative_at_both_ends() -> None:
    space = read_space("configs/tune/space.yaml")
    corners = list(space.corners())
    names = {name for corner in corners for name, _ in corner.alternatives.values()}
    expected = {
        name for named in space.groups.values() for name, each in named.items() if not each.is_plain
    }
    assert names == expected
    strengths = [c.alternatives["method"][1] for c in corners if "method" in c.alternatives]
    assert {"curriculum": 0.02} in strengths
    assert {"curriculum": 0.3} in strengths


def test_space_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("plain: [")
    with pytest.raises(ValueError, match="space: expected YAML in"):
        read_space(str(path))
