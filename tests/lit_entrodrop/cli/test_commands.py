"""Table of commands: complete, and shown without importing heavy libraries."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lit_entrodrop.commands
from lit_entrodrop import __version__
from lit_entrodrop.cli.commands import COMMANDS, check_command, overview
from lit_entrodrop.cli.lit_cli import PROVIDED
from lit_entrodrop.cli.main import main

HEAVY = ("torch", "lightning", "transformers", "jsonargparse", "numpy", "regularizers.base")
PROBE = f"""
import sys
from lit_entrodrop.cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(repr(sorted(set({HEAVY!r}) & set(sys.modules))))
"""


def loaded(*words: str) -> tuple[str, str]:
    """Run a command line in a fresh interpreter; return its output and the heavy modules it loads.

    The modules come before the error line, which the interpreter prints last.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=60
    )
    modules, _, error = done.stderr.partition("]")
    return done.stdout + error, modules + "]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert shown.startswith("usage: lit-entrodrop")
    assert name in shown.split(maxsplit=6)


def test_table_lists_all_packages_and_lightning_subcommands() -> None:
    packages = pkgutil.iter_modules(lit_entrodrop.commands.__path__)
    own = [found.name.replace("_", "-") for found in packages]
    assert sorted([*own, *PROVIDED]) == sorted(COMMANDS)


def test_descriptions_fit_a_terminal() -> None:
    for text in COMMANDS.values():
        assert text.endswith(".")
        assert len(text) <= 80


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_all_commands_without_heavy_imports(words: list[str]) -> None:
    shown, modules = loaded(*words)
    for name, text in COMMANDS.items():
        assert f"\n  {name:<14} {text}\n" in shown
    assert modules == "[]"


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["tune", "--budget", "10 min"], "lit-entrodrop: error: budget: expected a duration"),
        (["compare", "--config", "no.yaml"], "lit-entrodrop: error: "),
    ],
)
def test_wrong_options_are_refused_before_heavy_imports(words: list[str], start: str) -> None:
    shown, modules = loaded(*words)
    assert shown.startswith(start)
    assert modules == "[]"


def test_version_and_unknown_command_import_nothing_heavy() -> None:
    assert loaded("--version") == (f"lit-entrodrop {__version__}\n", "[]")
    shown, modules = loaded("reprot")
    assert shown.startswith("lit-entrodrop: error: expected one of compare, ")
    assert "got reprot: did you mean report?" in shown
    assert modules == "[]"


def test_missing_package_is_named_with_the_remedy() -> None:
    hidden = "import sys; sys.modules['rich'] = None; from lit_entrodrop.cli.main import main; "
    command = [sys.executable, "-c", f"{hidden}main(['regularizers'])"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == (
        "lit-entrodrop: error: expected the package rich, found none: pip install lit-entrodrop\n"
    )


def test_error_for_an_unknown_command_lists_all() -> None:
    with pytest.raises(ValueError, match="see lit-entrodrop --help") as raised:
        check_command("xyz")
    assert all(name in str(raised.value) for name in COMMANDS)
    with pytest.raises(SystemExit, match=r"^lit-entrodrop: error: .*did you mean verify-resume"):
        main(["verify_resume"])


def test_help_of_fit_agrees_with_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PROVIDED:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"\n{COMMANDS[name]}\n" in capsys.readouterr().out


def test_a_package_and_a_row_are_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "greet"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "command.py").write_text("def main(args):\n    print('Hello', *args)\n")
    folders = [*lit_entrodrop.commands.__path__, str(tmp_path)]
    monkeypatch.setattr(lit_entrodrop.commands, "__path__", folders)
    monkeypatch.setitem(COMMANDS, "greet", "Say hello.")
    main(["greet", "you"])
    assert capsys.readouterr().out == "Hello you\n"
    assert "greet          Say hello." in overview()
