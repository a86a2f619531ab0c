"""Build the documentation site. A warning of Sphinx is an error.

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
# Folders that pages link to, with the same paths as in the repository.
LINKED = ("docs", "configs", "examples", "benchmarks", "lit_entrodrop", "tests", ".ci")


def assemble(folder: Path) -> None:
    """Copy the pages of the repository and write the generated pages.

    Args:
        folder: Empty folder for the sources of the site.
    """
    for name in LINKED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "docs" / "index.md"]:
        shutil.copy(path, folder)
    for page in [*folder.glob("*.md"), *folder.glob("docs/**/*.md")]:
        page.write_text(without_links_to_folders(page), "utf-8")
    write_pages(ROOT, folder)


def without_links_to_folders(page: Path) -> str:
    """Return the text of a page without links to folders, which a site cannot show."""

    def text_alone(link: re.Match[str]) -> str:
        return link[1] if (page.parent / link[2]).is_dir() else link[0]

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", text_alone, page.read_text("utf-8"))


def render(sources: Path, output: Path) -> int:
    """Render the sources as HTML.

    Args:
        sources: Folder of the sources.
        output: Folder for the HTML pages.

    Returns:
        Exit status; 0 for success.
    """
    # A cached page would not repeat its warnings.
    with TemporaryDirectory() as cache:
        options = ["--fail-on-warning", "--quiet", "-d", cache, "-c", str(ROOT / "docs")]
        return build_main([*options, str(sources), str(output)])


def main() -> int:
    """Parse the command line and build the site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    with TemporaryDirectory() as sources:
        assemble(Path(sources))
        return render(Path(sources), parser.parse_args().output)


if __name__ == "__main__":
    sys.exit(main())
