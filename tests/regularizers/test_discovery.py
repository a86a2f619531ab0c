"""Regularizers found in source files, and in metadata as an installer writes it."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from regularizers import Regularizer, stub
from regularizers.discovery import (
    Installation,
    installed_regularizers,
    is_complete,
    own_regularizers,
)
from regularizers.sources import FOLDER, exported, methods
from tests.helpers.announced import SOUND, install


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def found() -> Installation:
    return installed_regularizers.__wrapped__()


def test_announced_regularizer_is_found_with_its_package(folder: Path) -> None:
    install(folder, "sound", "Sound = kit_sound:Sound", "kit_sound", SOUND.format(name="Sound"))
    installation = found()
    [sound] = installation.regularizers.values()
    assert installation.problems == ()
    assert (sound.class_path, sound.package, sound.version) == ("kit_sound.Sound", "sound", "2.1")
    assert sound.kind.__name__ == "Sound"


@pytest.mark.parametrize(
    ("announced", "source", "told"),
    [
        ("Faulty = kit_faulty:Faulty", "1 / 0", "raised ZeroDivisionError: division by zero"),
        ("Faulty = kit_faulty:Faulty", "import no_such_module", "No module named 'no_such_module'"),
        ("Faulty = kit_faulty:Faulty", "raise SystemExit(3)", "raised SystemExit: 3"),
        ("Faulty = kit_faulty:Faulty", "import pytest; pytest.skip('Here.')", "raised Skipped: "),
        ("Faulty = kit_faulty:Faulty", "", "raised AttributeError"),
        ("Faulty = kit_faulty:Faulty", "Faulty = 3", "expected a subclass of regularizers.Reg"),
        ("Faulty = kit_faulty:Faulty", "class Faulty: pass", "expected a subclass of regularizers"),
        (
            "Faulty = kit_faulty:Faulty",
            "from regularizers import EntroDrop as Faulty",
            "of that name",
        ),
        (
            "Faulty = kit_faulty:Faulty",
            SOUND.format(name="Faulty") + "    def __init__(self, rate): super().__init__()",
            "whose settings all have defaults",
        ),
        ("faulty = kit_faulty:Faulty", SOUND.format(name="Faulty"), "expected the name of its cl"),
        ("Faulty = kit_faulty", "", "expected the name of its class"),
    ],
)
def test_unusable_one_is_named_and_does_not_hide_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, announced: str, source: str, told: str
) -> None:
    monkeypatch.delitem(sys.modules, "kit_faulty", raising=False)
    install(folder, "faulty", announced, "kit_faulty", source)
    install(folder, "good", "Beside = kit_beside:Beside", "kit_beside", SOUND.format(name="Beside"))
    installation = found()
    assert list(installation.regularizers) == ["Beside"]
    [problem] = installation.problems
    assert problem.startswith("faulty 2.1 announces ")
    assert told in problem
    assert "ask its author" in problem or "reinstall or remove faulty 2.1" in problem


def test_name_of_ours_is_refused_unseen(folder: Path) -> None:
    install(folder, "thief", "EntroDrop = kit_thief:EntroDrop", "kit_thief", "1 / 0")
    [problem] = found().problems
    assert "got one of lit-entrodrop and thief 2.1" in problem
    assert "kit_thief.EntroDrop" in problem


def test_name_of_two_packages_is_refused_for_both(folder: Path) -> None:
    install(folder, "one", "Pair = kit_pair1:Pair", "kit_pair1", SOUND.format(name="Pair"))
    install(folder, "two", "Pair = kit_pair2:Pair", "kit_pair2", SOUND.format(name="Pair"))
    installation = found()
    assert installation.regularizers == {}
    assert len(installation.problems) == 2
    assert all("got one of one 2.1 and two 2.1" in problem for problem in installation.problems)


def test_reading_the_files_finds_what_importing_them_finds() -> None:
    imported = {}
    for path in FOLDER.glob("*.py"):
        module = importlib.import_module(f"regularizers.{path.stem}")
        imported |= {
            name: kind
            for name, kind in inspect.getmembers(module, inspect.isclass)
            if kind.__module__ == module.__name__ and issubclass(kind, Regularizer)
        }
    complete = {name: kind for name, kind in imported.items() if is_complete(kind)}
    assert own_regularizers() == complete
    assert len(complete) >= 21
    for name, kind in complete.items():
        assert methods()[name].docstring == kind.__doc__
        hooks = [each for each in vars(Regularizer) if each.startswith("on_")]
        overridden = {each for each in hooks if getattr(kind, each) != getattr(Regularizer, each)}
        assert methods()[name].hooks == overridden, name


def test_stub_names_every_method_to_type_checkers() -> None:
    assert stub.PATH.read_text("utf-8") == stub.stub(), "run `python -m regularizers.stub`"
    for name in own_regularizers():
        assert f"{name} as {name}" in stub.stub()


def test_type_checker_sees_the_class(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("from regularizers import ZLoss\nreveal_type(ZLoss())\n")
    words = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-site-packages"]
    pytest.importorskip("mypy")
    done = subprocess.run(
        [*words, str(probe)], capture_output=True, text=True, cwd=FOLDER.parent, timeout=600
    )
    assert 'Revealed type is "regularizers.z_loss.ZLoss"' in done.stdout, done.stdout


def test_every_exported_name_can_be_imported() -> None:
    package = importlib.import_module("regularizers")
    assert package.__all__ == sorted(exported())
    assert set(exported()) <= set(dir(package))
    for name in exported():
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'EntropyDrop'"):
        getattr(package, "EntropyDrop")  # noqa: B009
