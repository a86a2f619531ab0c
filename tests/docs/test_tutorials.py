"""The commands and files of the tutorials are valid, and `fit` has a corpus on every page."""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.planning.settings import read_settings
from tests.helpers.tiny import CONFIGS

DOCS = CONFIGS.parent / "docs"
PAGES = sorted((DOCS / "tutorials").glob("*.md"))
COMMAND = re.compile(r"^    lit-entrodrop (.+)$", re.MULTILINE)
FIT = re.compile(r"^[^`\n]*(?: fit|\.sbatch) (--config .+)$", re.MULTILINE)


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


def has_corpus(name: str) -> bool:
    """Whether a config is the user's, or sets `data.corpus`."""
    if not name.startswith("configs/"):
        return True
    return "corpus" in yaml.safe_load((CONFIGS.parent / name).read_text("utf-8")).get("data", {})


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_fit_has_a_corpus(page: Path) -> None:
    for line in FIT.findall(page.read_text("utf-8").replace("\\\n", " ")):
        options = shlex.split(line)
        given = any(option.startswith("--data.corpus") for option in options) or "..." in options
        assert given or any(map(has_corpus, values(options, "--config"))), line
