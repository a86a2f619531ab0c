"""Settings of the documentation; ``python docs/build_site.py`` builds it."""

import re
from typing import Any

from sphinx.application import Sphinx

from regularizers.discovery import own_regularizers

project = "lit-entrodrop"
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "*.md",
    "docs/*.md",
    "methods/*.rst",
    "reference/*.rst",
    "*/*/README.md",
]
exclude_patterns = ["README.md", "docs/index.md"]

html_theme = "furo"
# Nothing on a page comes from a network, nor is a page sent to one.
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_custom_sections = [("Source", "notes_style")]

nitpicky = True
# The pages of others are not here.
nitpick_ignore_regex = [("py:.*", r"(?!regularizers).*")]


def what_the_page_has_not_told(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Keep of the docstring of a method what its page does not tell above: errors and example."""
    if obj in own_regularizers().values():
        kept = [bool(re.match("Raises:|>>>", line)) for line in lines]
        del lines[: kept.index(True) if any(kept) else None]


def formulas_as_they_stand(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turn an indented block after a colon into a literal one; it is a formula, not a quotation."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"(?<!:):\n\n(?=[ ]+\S)", "::\n\n", text).split("\n")


def setup(app: Sphinx) -> None:
    """Connect the hooks."""
    app.connect("autodoc-process-docstring", what_the_page_has_not_told, priority=300)
    app.connect("autodoc-process-docstring", formulas_as_they_stand, priority=400)
