"""Sphinx configuration; ``python docs/build_site.py`` builds the site."""

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
    "docs/tutorials/*.md",
    "benchmarks/gpu.md",
    "methods/*.rst",
    "reference/*.rst",
    "*/*/README.md",
    "*/*/*/README.md",
]
exclude_patterns = ["README.md", "docs/index.md"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["narrow.css"]
# Pages load nothing from a network.
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
# Other projects are not part of the site.
nitpick_ignore_regex = [("py:.*", r"(?!regularizers).*")]


def keep_errors_and_example(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Keep errors and example of a method's docstring; its page shows the rest above."""
    if obj in own_regularizers().values():
        kept = [bool(re.match("Raises:|>>>", line)) for line in lines]
        del lines[: kept.index(True) if any(kept) else None]


def formulas_as_literal_blocks(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turn an indented block after a colon, a formula, into a literal block."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"(?<!:):\n\n(?=[ ]+\S)", "::\n\n", text).split("\n")


def setup(app: Sphinx) -> None:
    """Connect the docstring hooks."""
    app.connect("autodoc-process-docstring", keep_errors_and_example, priority=300)
    app.connect("autodoc-process-docstring", formulas_as_literal_blocks, priority=400)
