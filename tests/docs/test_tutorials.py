"""The commands and files of the tutorials are valid."""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.planning.settings import read_settings
from tests.helpers.tiny import CONFIGS

PAGES = sorted((CONFIGS.parent / "docs" / "tutorials").glob("*.md"))
COMMAND = re.compile(r"^    lit-entrodrop (.+)$", re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in COMMAND.findall(text.replace("\\\n", " "))]


def values(command: list[str], option: str) -> list[str]:
    """List the values of an option that may be repeated or have several."""
    found = []
    for place, word in enumerate(command):
        if word == option:
            rest = command[place + 1 :]
            end = next((at for at, each in enumerate(rest) if each.startswith("--")), len(rest))
            found += rest[:end]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    for name, block in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(block)
    found = commands(text)
    assert len(found) > 4
    for subcommand, *options in found:
        if subcommand == "compare":
            [config] = values(options, "--config")
            base = values(options, "--base")
            settings = read_settings(Path(config))
            assert len((settings.with_base(base) if base else settings).arms) > 1
        elif subcommand in ("fit", "doctor", "preview", "plan", "tune"):
            files = [f"--config={name}" for name in values(options, "--config")]
            names = [word for word in options if re.match(r"--(data|trainer|model)\.", word)]
            given = [f"{name}={values(options, name)[0]}" for name in names]
            with redirect_stdout(StringIO()), pytest.raises(SystemExit) as ended:
                main(["fit", *files, *given, "--print_config"])
            assert not ended.value.code
