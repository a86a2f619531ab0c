"""The sizes and the mirror that CONTRIBUTING.md promises."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_entrodrop", "regularizers")
SOURCES = sorted(
    path
    for folder in (*PACKAGES, "benchmarks", "examples", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
MOST_ENTRIES, MOST_LINES, MOST_FUNCTION_LINES = 12, 275, 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    yield from (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - first[0].lineno + 1 if first and function.end_lineno else 0


def test_top_of_the_package_has_few_entries() -> None:
    entries = [each for each in (ROOT / "lit_entrodrop").iterdir() if each.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(each.name for each in entries)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert not [each.name for each in functions(source) if body_lines(each) > MOST_FUNCTION_LINES]


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_folders_of_the_package(package: str) -> None:
    tested = {path.relative_to(ROOT / "tests").parent for path in files_testing(package)}
    missing = [str(folder) for folder in tested if not (ROOT / folder).is_dir()]
    assert tested
    assert not missing


def files_testing(package: str) -> list[Path]:
    return sorted((ROOT / "tests" / package).rglob("test_*.py"))
