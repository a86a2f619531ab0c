"""Parser of a regularizer's docstring: summary, formula, source and settings."""

import re
from dataclasses import dataclass, field
from textwrap import dedent

from docstring_parser.google import DEFAULT_SECTIONS, GoogleParser, Section, SectionType

PARSER = GoogleParser([*DEFAULT_SECTIONS, Section("Source", "source", SectionType.SINGULAR)])
INDENT = "    "


@dataclass(frozen=True)
class Documentation:
    """Parts of a docstring; missing parts are empty."""

    summary: str = ""  # first line
    introduction: str = ""  # text before the formula; all text if there is no formula
    formula: str = ""  # first indented block, with its line breaks
    prose: str = ""  # text after the formula
    source: str = ""  # paper that proposed the method
    arguments: dict[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Documentation:
    r"""Parse a Google docstring; each paragraph becomes one line.

    >>> read_docstring("Halve.\n\nThe loss is\n\n    L / 2\n\nSource:\n    Us.").formula
    'L / 2'
    """
    parsed = PARSER.parse(text)
    paragraphs = _paragraphs(parsed.long_description or "")
    is_formula = [paragraph.startswith(INDENT) for paragraph in paragraphs]
    start = is_formula.index(True) if True in is_formula else len(paragraphs)
    end = next((i for i in range(start, len(paragraphs)) if not is_formula[i]), len(paragraphs))
    sources = [each.description for each in parsed.meta if each.args == ["source"]]
    return Documentation(
        summary=parsed.short_description or "",
        introduction="\n\n".join(paragraphs[:start]),
        formula=dedent("\n\n".join(paragraphs[start:end])),
        prose="\n\n".join(paragraphs[end:]),
        source=_unwrapped(sources[0] or "") if sources else "",
        arguments={each.arg_name: _unwrapped(each.description or "") for each in parsed.params},
    )


def _paragraphs(text: str) -> list[str]:
    blocks = re.split(r"\n\s*\n", text)
    return [_unwrapped(block) for block in blocks if block.strip() and not block.startswith(">>>")]


def _unwrapped(block: str) -> str:
    # Formulas and lists keep their lines.
    return block.rstrip() if re.match(r" {4}|[-*] ", block) else " ".join(block.split())
