"""Regularizers from settings, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from regularizers import Constant, Focal
from regularizers.discovery import installed_regularizers
from regularizers.integrations.configs import build_regularizers
from tests.helpers.announced import SOUND, install
from tests.helpers.tiny import CONFIGS

FILES = sorted((CONFIGS / "regularizers").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_configs_of_this_project_are_understood(file: Any) -> None:
    given = yaml.safe_load(file.read_text())["model"]["regularizers+"]
    built = build_regularizers(given)
    assert [f"regularizers.{type(each).__name__}" for each in built] == [
        each["class_path"] for each in given
    ]


def test_announced_class_is_named_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "named", "Named = kit_named:Named", "kit_named", SOUND.format(name="Named"))
    installed_regularizers.cache_clear()
    try:
        [built] = build_regularizers([{"class_path": "Named"}])
    finally:
        installed_regularizers.cache_clear()
    assert type(built).__module__ == "kit_named"


REFUSED: dict[str, tuple[Any, str]] = {
    "setting": ({"class_path": "Focal", "init_args": {"gama": 1}}, "Focal has no setting gama"),
    "key": ({"class_path": "Focal", "gamma": 1}, "expected the keys class_path and init_args"),
    "function": ({"class_path": "os.system"}, "class path of a regularizer or a curriculum"),
    "module": ({"class_path": "no_such.Focal"}, "cannot import"),
    "curriculum": ({"class_path": "Constant", "init_args": {"value": 1}}, "a regularizer, or"),
    "relative": ({"class_path": "..Focal"}, "cannot import"),
    "missing": ({"class_path": "Linear"}, "Linear needs the setting end"),
    "text": ({"class_path": "Focal", "init_args": {"curriculum": "1e-3"}}, "float, got '1e-3'"),
    "count": ({"class_path": "Goldfish", "init_args": {"context": 2.5}}, "expected int, got 2.5"),
    "flag": ({"class_path": "L2SP", "init_args": {"decoupled": "no"}}, "expected bool, got 'no'"),
    "name": ("Focal", "a regularizer, or class_path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_settings_are_refused(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build_regularizers([given])


@pytest.mark.parametrize("given", [None, "Focal", {"class_path": "Focal"}, Focal()])
def test_regularizers_are_a_list(given: Any) -> None:
    with pytest.raises(ValueError, match="expected a list"):
        build_regularizers(given)


def test_curricula_are_built_too() -> None:
    curriculum = {"class_path": "regularizers.Constant", "init_args": {"value": 0.25}}
    [built] = build_regularizers(
        [{"class_path": "EmbeddingDropout", "init_args": {"curriculum": curriculum}}]
    )
    assert isinstance(built.curriculum, Constant)
    assert built.curriculum(0.5) == 0.25
