"""Templates of pages: where they are found, and the filters that all pages share."""

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lit_entrodrop.commands.report.rendering import formatting

SHARED = "lit_entrodrop.commands.report.rendering"


def environment(package: str) -> Environment:
    """Return an environment with the templates of a package and, after these, the shared ones.

    Values are escaped, and a name that is not defined is an error.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(each, "") for each in (package, SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"code": _code, "words": _words, "number": _number}
    return found


def _number(value: float | None, form: str) -> str:
    unknown = value is None or value != value
    return formatting.NOTHING if unknown else f"{value:{form}}".replace("-", "−")


def _code(text: str) -> Markup:
    """Escape a sentence, with the text between backquotes as code."""
    parts = re.sub(r"(\d) %", r"\1%", str(text)).split("`")
    return Markup("").join(_as_code(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _as_code(code: str) -> Markup:
    return Markup("<code>{}</code>").format(_words(code))


def _words(command: str) -> Markup:
    """Keep each word of a command on one line: browsers break lines after hyphens."""
    words = (Markup("<span>{}</span>").format(word) for word in command.split(" "))
    return Markup(" ").join(words)
