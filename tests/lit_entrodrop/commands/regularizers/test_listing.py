import subprocess
import sys
from pathlib import Path

import pytest

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.regularizers.catalog import find_all
from lit_entrodrop.commands.regularizers.listing import acts_on
from regularizers.sources import methods
from tests.regularizers.test_discovery import SOUND, install

PROBE = """
import sys
from lit_entrodrop.cli.main import main
main(["regularizers"])
print(sorted({"torch", "lightning", "transformers", "numpy"} & set(sys.modules)))
"""


def test_list_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("\n[]\n")
    assert "EntroDrop" in done.stdout


def test_list_agrees_with_the_classes() -> None:
    for name, described in find_all().descriptions.items():
        if described.package == "lit-entrodrop":
            assert acts_on(methods()[name].hooks) == ", ".join(described.acts_on)


def test_other_packages_are_listed_without_running_their_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "raise SystemExit(3)" + SOUND.format(name="Inert")
    install(tmp_path, "inert", "Inert = kit_inert:Inert", "kit_inert", source)
    install(tmp_path, "hidden", "Hidden = kit_nowhere.deep:Hidden", "kit_hidden", "")
    install(tmp_path, "thief", "EntroDrop = kit_thief:EntroDrop", "kit_thief", "1 / 0")
    main(["regularizers"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "inert 2.1" in shown
    assert "Inert │ Do nothing." in shown
    assert "hidden 2.1" in shown
    assert "not usable: thief 2.1 announces EntroDrop" in shown
