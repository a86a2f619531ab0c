"""Plain text (.txt) and Markdown (.md), cut into documents at `<|endoftext|>`."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".md", ".txt")
SEPARATOR = "<|endoftext|>"
GROUP_CHARACTERS = 4_000
# A shorter text has smaller groups, so that each split can get some of them.
FEWEST_GROUPS = 20
FEWEST_CHARACTERS = 100

_SEPARATOR = re.compile(rf"[ \t]*{re.escape(SEPARATOR)}[ \t]*(?:\r?\n)?")
_BLANK_LINE = re.compile(r"[ \t\r]*\n")


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one document per part between separators.

    Without separators, a file that is alone is cut into groups of paragraphs; any other file is one
    document.
    """
    size = _size_without_separators(file) if file.alone else None
    lines = file.read_lines()
    if size is None:
        parts = split_at_separators(lines)
    else:
        smaller = max(FEWEST_CHARACTERS, size // FEWEST_GROUPS)
        parts = split_into_groups(lines, min(GROUP_CHARACTERS, smaller))
    for number, part in enumerate(parts, start=1):
        yield Record(f"{file.path} part {number}", part)


def split_at_separators(lines: Iterable[str]) -> Iterator[str]:
    r"""Cut lines at each `<|endoftext|>` into non-blank parts.

    The spaces around a separator, and a line end after it, are part of it.

    >>> list(split_at_separators(["a\n", "<|endoftext|>\n", "b <|endoftext|> c\n"]))
    ['a\n', 'b', 'c\n']
    """
    part: list[str] = []
    for line in chain(lines, [SEPARATOR]):
        *ended, rest = _SEPARATOR.split(line)
        for end in ended:
            text = "".join([*part, end])
            part.clear()
            if text.strip():
                yield text
        part.append(rest)


def split_into_groups(lines: Iterable[str], characters: int = GROUP_CHARACTERS) -> Iterator[str]:
    r"""Cut the lines of a long text into groups of paragraphs.

    A group ends at the first blank line after `characters`, or at the first line end after twice
    as many; a longer line is cut after a space. Text appended at the end therefore changes only
    the last group.

    >>> list(split_into_groups(["one\n", "\n", "two\n", "\n", "three"], characters=6))
    ['one\n\ntwo\n\n', 'three']
    """
    group: list[str] = []
    # Groups that are complete only if text follows.
    waiting: list[str] = []
    length = line_ends = 0
    for line in break_long_lines(lines, 2 * characters):
        if not (line_ends and _BLANK_LINE.fullmatch(line)):
            if line_ends and length >= (characters if line_ends > 1 else 2 * characters):
                waiting.append("".join(group))
                group.clear()
                length = 0
            line_ends = 0
        group.append(line)
        length += len(line)
        line_ends += 1
        if not line.isspace():
            yield from waiting
            waiting.clear()
    if group:
        yield "".join([*waiting, *group])


def break_long_lines(lines: Iterable[str], characters: int) -> Iterator[str]:
    """Cut lines after the first space beyond `characters`, or there if no space is near.

    >>> list(break_long_lines(["one two three"], characters=5))
    ['one two ', 'three']
    """
    for line in lines:
        start = 0
        while len(line) - start > characters:
            least = start + characters
            end = line.find(" ", least - 1, least + characters) + 1 or least
            yield line[start:end]
            start = end
        yield line[start:]


def _size_without_separators(file: CorpusFile) -> int | None:
    """Return the number of characters of a text; None if it has separators."""
    size = 0
    for line in file.read_lines():
        if SEPARATOR in line:
            return None
        size += len(line)
    return size
