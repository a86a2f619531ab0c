"""A config names classes of the expected type, each key once, and cannot run a function."""

import re
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.parsing import Parser

# Settings that take a class, and their value for CLASS.
PLACES = {
    "model.optimizer": "CLASS",
    "model.regularizers": "[CLASS]",
    "model.regularizers.curriculum": "[{class_path: EntroDrop, init_args: {curriculum: CLASS}}]",
    "model.memorization": "CLASS",
    "data.order": "CLASS",
    "monitors.samples": "CLASS",
    "trainer.callbacks": "[CLASS]",
    "trainer.callbacks.on_fit_start": (
        "{class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {on_fit_start: CLASS}}"
    ),
    "trainer.logger": "CLASS",
    "trainer.plugins": "[CLASS]",
}


def refusal(setting: str, value: str) -> str:
    """Return the error of `fit` for a setting."""
    name = re.sub(r"\.(curriculum|on_fit_start)$", "", setting)
    with pytest.raises(ArgumentError) as raised:
        resolved_config([f"--{name}={value}"])
    return str(raised.value)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Module whose functions claim to return what settings expect, and leave a file when called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "claims_classes.py").write_text(
        "from pathlib import Path\n"
        "from lightning import Callback\n"
        "from torch.optim import Optimizer\n"
        "def callback() -> Callback:\n    Path('called').touch()\n"
        "def optimizer(params) -> Optimizer:\n    Path('called').touch()\n"
    )
    return tmp_path / "called"


@pytest.mark.parametrize("setting", PLACES)
def test_no_setting_calls_a_program(setting: str, tmp_path: Path) -> None:
    called = tmp_path / "called"
    spec = f"{{class_path: os.system, init_args: {{command: touch {called}}}}}"
    line = refusal(setting, PLACES[setting].replace("CLASS", spec))
    expected = "expected a class that cannot run programs or change files"
    assert line == f"{setting}: {expected}, got os.system"
    assert not called.exists()


def test_setting_without_a_type_builds_nothing() -> None:
    parser = Parser()
    parser.add_argument("--x", type=dict[str, Any])
    parsed = parser.parse_args(["--x={a: {class_path: torch.nn.Flatten}}"])
    assert not isinstance(parser.instantiate(parsed).x["a"], torch.nn.Flatten)


@pytest.mark.parametrize(
    ("setting", "name"), [("trainer.callbacks", "callback"), ("model.optimizer", "optimizer")]
)
def test_function_in_place_of_a_class_is_not_called(setting: str, name: str, plug_in: Path) -> None:
    line = refusal(setting, f"{{class_path: claims_classes.{name}}}")
    assert line.endswith(f"expected a class, got claims_classes.{name}, which is a function")
    assert not plug_in.exists()


@pytest.mark.parametrize(
    "text", ["data: {batch_size: 2, batch_size: 4}", "a: 1\ndata:\n  corpus: x\na: 2"]
)
def test_repeated_key_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"expected each key once, got '(batch_size|a)' again"):
        resolved_config([f"--config={text}"])


def test_python_tag_is_refused() -> None:
    with pytest.raises(ArgumentError, match="could not determine a constructor for the tag"):
        resolved_config(["--config=a: !!python/object/apply:os.getcwd []"])


@pytest.mark.parametrize("flag", ["--data.bach_size=2", "--config={data: {bach_size: 2}}"])
def test_misspelled_setting_is_suggested(flag: str) -> None:
    with pytest.raises(ArgumentError, match=r"bach_size.*did you mean data\.batch_size"):
        resolved_config([flag])


def test_abbreviated_setting_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"unrecognized arguments: --data\.batch=2"):
        resolved_config(["--data.batch=2"])


def test_alias_repeats_no_key() -> None:
    text = yaml.safe_dump({"data": {"batch_size": 2}})
    config = resolved_config([f"--config=trainer: &a {{max_epochs: 3}}\n{text}"])
    assert config["trainer"]["max_epochs"] == 3


def test_aliases_cannot_exhaust_the_memory() -> None:
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    text = "\n".join(["a0: &a0 x", *lines])
    with pytest.raises(ArgumentError, match="got more by repeated aliases"):
        resolved_config([f"--config={text}"])
