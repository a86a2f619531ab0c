"""The documentation builds without a warning, and all of it can be reached."""

import re
import runpy
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from lit_entrodrop.commands.regularizers.docstrings import read_docstring
from regularizers.discovery import own_regularizers
from tests.helpers.browsing import DESK, PHONE, opened
from tests.helpers.processes import run_forked

pytest.importorskip("sphinx", reason="pip install 'lit-entrodrop[docs]'")
pytest.importorskip("myst_parser", reason="pip install 'lit-entrodrop[docs]'")
pytest.importorskip("furo", reason="pip install 'lit-entrodrop[docs]'")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def build_site(output: Path) -> None:
    """Run the script as `make docs` does."""
    sys.argv = ["build_site.py", "--output", str(output)]
    sys.path.insert(0, str(DOCS))
    runpy.run_path(str(DOCS / "build_site.py"), run_name="__main__")


def render(sources: Path, output: Path) -> None:
    sys.path.insert(0, str(DOCS))
    sys.exit(import_module("build_site").render(sources, output))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = run_forked(build_site, folder, cwd=DOCS)
    assert built.returncode == 0, built.stdout
    return folder


class Page(HTMLParser):
    """What a page names, links to and loads, and what stands on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given["id"]} if "id" in given else set()
        self.links |= {given["href"]} if tag == "a" and "href" in given else set()
        self.loaded |= {given["src"]} if "src" in given else set()
        self.loaded |= {given["href"]} if tag == "link" else set()

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def words(text: str) -> str:
    """The letters and digits: of markup and spaces a page keeps its own."""
    return "".join(re.findall(r"\w", text))


def test_every_method_has_a_page(site: Path, pages: dict[Path, Page]) -> None:
    overview = pages[site / "methods" / "index.html"]
    for name, kind in own_regularizers().items():
        said = read_docstring(kind.__doc__)
        page = pages[site / "methods" / f"{name}.html"]
        assert said.formula
        assert said.source
        for part in (said.summary, said.formula, said.source):
            assert words(part) in words(page.text)
        assert f"class_path: regularizers.{name}" in page.text
        assert f"{name}.html" in overview.links
        assert words(said.summary) in words(overview.text)


def test_links_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        for link in page.links | page.loaded
        if not urlsplit(link).scheme and not leads_somewhere(path, link, pages)
    ]
    assert broken == []


def leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.fragment and target in pages:
        return unquote(parts.fragment) in pages[target].ids
    return target.is_file()


def test_pages_load_nothing_from_a_network(pages: dict[Path, Page]) -> None:
    assert any(page.loaded for page in pages.values())
    assert not [each for page in pages.values() for each in page.loaded if urlsplit(each).netloc]


# Elements whose content is wider than they are scroll sideways.
SCROLLING = """
const tables = [...document.querySelectorAll(".table-wrapper")];
return [tables.length, tables.filter(each => each.scrollWidth > each.clientWidth).length];
"""


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_front_page_and_its_tables_do_not_scroll_sideways(
    site: Path, browser: Any, width: int
) -> None:
    shown = opened(browser, site / "index.html", width)
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    tables, scrolling = shown.execute_script(SCROLLING)
    assert tables == 3
    assert not scrolling


def test_extra_brings_what_autodoc_imports() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    installed = re.findall(r"^(?:dependencies|docs) = \[.*?\]$", project, re.DOTALL | re.MULTILINE)
    assert len(installed) == 2
    sources = [path.read_text("utf-8") for path in (ROOT / "regularizers").rglob("*.py")]
    # Indented imports are optional, or wait for a call.
    statement = re.compile(r"^(?:from|import) (\w+)(?:[\w.]* import .+)?$", re.MULTILINE)
    imported = set(statement.findall("\n".join(sources)))
    for name in imported - sys.stdlib_module_names - {"regularizers"}:
        assert f'"{name}>=' in "".join(installed)


def test_a_warning_fails(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
    done = run_forked(render, tmp_path, tmp_path / "out", cwd=DOCS)
    assert done.returncode == 1
    assert "'nowhere.md'" in done.stdout
