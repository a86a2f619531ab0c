"""Build the documentation as a folder of pages, strictly: what Sphinx warns of fails.

``python docs/build_site.py --output build/docs``, then open ``build/docs/index.html``.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from method_pages import write_pages
from sphinx.cmd.build import build_main

ROOT = Path(__file__).parents[1]
# What pages link to; links are the same here and in the repository.
LINKED = ("docs", "configs", "examples", "benchmarks", "lit_entrodrop")


def assemble(folder: Path) -> None:
    """Put together the sources of the site: the pages of the repository and generated ones.

    Args:
        folder: an empty one.
    """
    for name in LINKED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "docs" / "index.md"]:
        shutil.copy(path, folder)
    for page in [*folder.glob("*.md"), *folder.glob("docs/*.md")]:
        page.write_text(without_links_to_folders(page), "utf-8")
    write_pages(ROOT, folder)


def without_links_to_folders(page: Path) -> str:
    """Return a page without links to folders: a repository shows them, a site has none."""

    def text_alone(link: re.Match[str]) -> str:
        return link[1] if (page.parent / link[2]).is_dir() else link[0]

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", text_alone, page.read_text("utf-8"))


def render(sources: Path, output: Path) -> int:
    """Make pages of sources.

    Args:
        sources: their folder.
        output: folder of the pages.

    Returns:
        0, or what the shell is told of a failure.
    """
    # A page that is kept from an earlier build would keep silent about its warnings.
    with TemporaryDirectory() as cache:
        options = ["--fail-on-warning", "--quiet", "-d", cache, "-c", str(ROOT / "docs")]
        return build_main([*options, str(sources), str(output)])


def main() -> int:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    with TemporaryDirectory() as sources:
        assemble(Path(sources))
        return render(Path(sources), parser.parse_args().output)


if __name__ == "__main__":
    sys.exit(main())
