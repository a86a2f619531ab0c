import platform
import subprocess
from pathlib import Path

import pytest

from lit_entrodrop import __version__
from lit_entrodrop.runtime.machine import device_name, source_version


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_version_of_a_checkout_names_its_commit_and_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert source_version(tmp_path) == __version__
    source = tmp_path / "a.py"
    source.write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "a")
    git(tmp_path, "tag", "v9.9.9")
    source_version.cache_clear()
    commit = git(tmp_path, "rev-parse", "--short", "HEAD").strip()
    assert source_version(tmp_path) == f"{__version__.partition('+')[0]}+{commit}"
    # An environment within a user's repository.
    assert source_version(tmp_path / ".venv") == __version__
    source.write_text("a = 2\n")
    source_version.cache_clear()
    assert source_version(tmp_path).endswith(f"+{commit}.dirty")


def test_version_without_git_is_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").touch()
    monkeypatch.setenv("PATH", "")
    assert source_version(tmp_path) == __version__


def test_cpu_is_named_more_closely_than_by_its_architecture() -> None:
    assert device_name() not in ("", "cpu", platform.machine())
