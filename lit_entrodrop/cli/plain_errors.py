"""Plain English in place of the messages of jsonargparse, which describe its own types.

Checked with jsonargparse 4.53; ``test_plain_errors.py`` fails if a message changes.
"""

import re
from collections.abc import Iterable

from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.runtime.spelling import did_you_mean

# Layers around a cause: the setting that they name, and the rest of the message.
LAYERS = (
    r'Parser key "(.+?)"(?: element \d+)?:\s*(.+)',
    r"()- Expected a path but .*? either not accessible or invalid\s+- (.+)",
    r"()Type \S*Callable.*? expects a function or a callable class: (.+?)"
    r"(?:\.? Got value: (?:Namespace|NestedArg)\(.*)?",
    r"()Problem with given class_path '[^']*':\s*((?:[a-z_][\w.]*:|Option|Importing) .+)",
    r"--([\w.]+): (Importing .+)",
    r"()Call to compute_fn of link .*? failed: (.+)",
)
UNION = (
    r"Does not validate against any of the Union subtypes\s+Subtypes: \[(?P<types>.*?)\]\s+"
    r"Errors:\n(?P<errors>.*)\n\s*Given value type: .*?\n\s*Given value: (?P<got>.*)"
)
UNKNOWN = (
    r"Option '(.+)' is not accepted",
    r"Subcommand '\w+' does not accept option '(.+)'",
    r"unrecognized arguments: --([\w.]+).*",
)
CLASS = "the path of a class, as module.Class"
# Causes: what was given, and what was expected.
CAUSES = (
    (r"Expected an? (?P<type><.*?>|\S*Literal\[.*?\])(?:\. Got value: ?(?P<got>.*))?", ""),
    (
        r"Problem with given class_path '[^']*':\s*'(?P<got>\w+)' object has no attribute 'keys'",
        "a mapping of settings for init_args",
    ),
    (
        r"Problem with given class_path '(?:\w+\.)*(\w+)':\s*the following arguments are required: "
        r"(.*?)(?P<got>)",
        r"\2 of \1",
    ),
    (r"Problem with given class_path '(?P<got>[^']*)':\s*(?P<reason>.*)", CLASS),
    (
        r"Importing '(?P<got>.+?)' is not allowed, .*",
        "a class that cannot run programs or change files",
    ),
    (r"Import path (?P<got>\S+) does not correspond to a subclass of (\w+)", r"a subclass of \2"),
    (r"Expected '(?P<got>.+?)' to be .*<class '(\w+)'>\.*", r"a subclass of \2"),
    (r"Not a valid subclass of (\w+)\. Got value: (?P<got>.*?)\s+Subclass types .*", r"a \1"),
    (r"Expected a dot import path string:\s*(?P<got>.*)", CLASS),
    (r"Unexpected import path format: (?P<got>.*)", CLASS),
    (r"argument of type '\w+' is not .*", CLASS),
    (r"Expected an import path or a subclass spec, but got (?P<got>.*)", "the path of a function"),
    (r"Unable to load config '(?P<got>.*?)'.*", "a mapping of settings"),
    (r"Unexpected config:(?P<got>.*)", "a mapping of settings"),
    (
        r"Subclasses are disabled for (\w+), thus '(?P<got>.+?)' is not accepted as class_path.*",
        r"the settings of \1",
    ),
    (r'Key "(\w+)\..*" not found in namespace\.', r"a mapping of settings for \1"),
)
# Words for types; the others are named by their class.
WORDS = (
    (r"<class 'int'>", "a whole number"),
    (r"<class 'float'>", "a number"),
    (r"<class 'bool'>", "true/false"),
    (r"<class 'str'>", "text"),
    (r"<class 'NoneType'>", "null"),
    (r"(?:<class ')?(?:dict|\S*Mapping)\b.*", "a mapping"),
    (r"(?:<class ')?(?:collections\.abc\.)?(?:list|tuple|Sequence|Iterable)\b.*", "a list"),
    (r"\S*Callable\b.*", "the path of a function"),
    (r"\S*Literal\[(.*)\]", r"one of \1"),
    (r"<class '(?:\w+\.)*(\w+)'>", r"a \1"),
)
REPLACED: dict[str | None, str] = {
    None: "another value",
    "": "nothing",
    "None": "null",
    "NoneType": "null",
}
LONGEST = 160  # characters of a value that a message repeats


def plain_error(message: str, known: Iterable[str] = ()) -> str:
    r"""Return what jsonargparse reports as ``setting: expected ..., got ...``.

    Args:
        message: Message of jsonargparse; any other is returned unchanged.
        known: Names of settings; the most similar is suggested for one that is not accepted.

    >>> plain_error('Parser key "a.b":\n  Expected a <class \'int\'>. Got value: x')
    'a.b: expected a whole number, got x'
    >>> plain_error("Option 'a.bach_size' is not accepted", ["a.batch_size"])
    "Option 'a.bach_size' is not accepted: did you mean a.batch_size?"
    >>> reason = "the following arguments are required: match"
    >>> plain_error(f"Problem with given class_path 'a.Rule': {reason}")
    'expected match of Rule, got nothing'
    """
    text = message.strip()
    for pattern in LAYERS:
        if layer := re.fullmatch(pattern, text, re.DOTALL):
            return _within(layer[1], plain_error(layer[2], known))
    if union := re.fullmatch(UNION, text, re.DOTALL):
        if nested := _cause(union["errors"]):
            return plain_error(nested, known)
        return _expected(_alternatives(union["types"]), union["got"])
    for pattern in UNKNOWN:
        if (unknown := re.fullmatch(pattern, text, re.DOTALL)) and "did you mean" not in text:
            meant = did_you_mean(unknown[1], known, "", similarity=0.8)
            return f"{text}: {meant}" if meant else text
    for pattern, expected in CAUSES:
        if cause := re.fullmatch(pattern, text, re.DOTALL):
            groups = cause.groupdict()
            words = cause.expand(expected) or _in_words(groups["type"])
            reason = f": {groups['reason']}" if "reason" in groups else ""
            return _expected(words, groups.get("got")) + reason
    return text


def _within(setting: str, cause: str) -> str:
    separator = "." if re.match(r"[a-z_][\w.]*: expected ", cause) else ": "
    return f"{setting}{separator}{cause}" if setting else cause


def _cause(errors: str) -> str | None:
    """Return the error of the alternative that the value was meant for, if there is one."""
    bullet = re.match(r"\s*- ", errors)
    each = errors[bullet.end() :].split(f"\n{bullet[0]}") if bullet else []
    of_another_type = (
        r"Expected a (<|\S*Literal|dot import)|Not a valid subclass|Expected an import"
    )
    return next((error for error in each if not re.match(of_another_type, error)), None)


def _expected(expected: str, got: str | None) -> str:
    value = one_line(REPLACED.get(got, got))
    shown = value if len(value) <= LONGEST else f"{value[:LONGEST]} ..."
    expected = re.sub(r"\ba (?=[AEIO])", "an ", expected)
    return f"expected {expected}, got {shown}"


def _alternatives(types: str) -> str:
    # Commas within brackets separate no types.
    names = re.findall(r"(?:<class '.+?'>|[^,\[]+(?:\[(?:[^\[\]]|\[.*?\])*\])?)(?=, |$)", types)
    words = list(dict.fromkeys(_in_words(name.strip(", ")) for name in names))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _in_words(name: str) -> str:
    for pattern, words in WORDS:
        if found := re.fullmatch(pattern, name):
            return found.expand(words)
    return name
