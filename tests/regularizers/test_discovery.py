"""Regularizers of other packages, with metadata as an installer writes it."""

import sys
from pathlib import Path

import pytest

from regularizers.discovery import GROUP, Installation, installed_regularizers

SOUND = """
from regularizers import Regularizer

class {name}(Regularizer):
    '''Do nothing.'''
"""


def install(folder: Path, package: str, announced: str, module: str, source: str) -> None:
    """Write a module, and the metadata of a distribution that announces a regularizer."""
    metadata = folder / f"{package}-2.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{announced}\n")
    (folder / f"{module}.py").write_text(source)


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
def test_unusable_one_is_told_and_does_not_hide_others(
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
