"""The table of commands is complete, and its help needs none of the heavy libraries."""

import pkgutil
import subprocess
import sys

import pytest

import lit_entrodrop.commands
from lit_entrodrop import __version__
from lit_entrodrop.cli.commands import BY_NAME, COMMANDS, Command, find_command
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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_row_leads_to_a_help(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command.resolve())
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert shown.startswith("usage: lit-entrodrop")
    assert command.name in shown.split(maxsplit=6)


def test_every_package_of_commands_has_a_row() -> None:
    modules = {command.path.partition(":")[0] for command in COMMANDS}
    for found in pkgutil.iter_modules(lit_entrodrop.commands.__path__, "lit_entrodrop.commands."):
        assert any(f"{module}.".startswith(f"{found.name}.") for module in modules), found.name
    assert set(PROVIDED) < set(BY_NAME)


def test_rows_fit_a_terminal() -> None:
    assert len(BY_NAME) == len(COMMANDS) >= 13
    for command in COMMANDS:
        assert command.help.endswith(".")
        assert len(command.help) <= 80


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_all_commands_at_once(words: list[str]) -> None:
    shown, modules = loaded(*words)
    for command in COMMANDS:
        assert f"\n  {command.name:<14} {command.help}\n" in shown
    assert modules == "[]"


def test_version_and_unknown_command_are_answered_at_once() -> None:
    assert loaded("--version") == (f"lit-entrodrop {__version__}\n", "[]")
    shown, modules = loaded("reprot")
    assert shown.startswith("lit-entrodrop: error: expected a command of compare, ")
    assert "got reprot: did you mean report?" in shown
    assert modules == "[]"


def test_unknown_command_names_all() -> None:
    with pytest.raises(ValueError, match="see lit-entrodrop --help") as raised:
        find_command("xyz")
    assert all(name in str(raised.value) for name in BY_NAME)
    with pytest.raises(SystemExit, match=r"^lit-entrodrop: error: .*did you mean verify-resume"):
        main(["verify_resume"])


def test_help_of_fit_agrees_with_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PROVIDED:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"\n{BY_NAME[name].help}\n" in capsys.readouterr().out
