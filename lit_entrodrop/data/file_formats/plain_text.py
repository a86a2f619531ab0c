"""Plain text (.txt), cut into documents at `<|endoftext|>` lines."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".txt",)
SEPARATOR = "<|endoftext|>"
GROUP_CHARACTERS = 4_000

_SEPARATOR_LINE = re.compile(rf"[ \t]*{re.escape(SEPARATOR)}[ \t]*\r?\n?")
_BLANK_LINE = re.compile(r"[ \t\r]*\n")


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one document per part between separator lines.

    Without separator lines, a file that is alone is cut into groups of paragraphs; any other file
    is one document.
    """
    grouped = file.alone and not any(map(_SEPARATOR_LINE.fullmatch, file.read_lines()))
    cut = split_into_groups if grouped else split_at_separators
    for number, part in enumerate(cut(file.read_lines()), start=1):
        yield Record(f"{file.path} part {number}", part)


def split_at_separators(lines: Iterable[str]) -> Iterator[str]:
    r"""Cut lines at those with only `<|endoftext|>` into non-blank parts.

    >>> list(split_at_separators(["a\n", "<|endoftext|>\n", "b\n"]))
    ['a\n', 'b\n']
    """
    part: list[str] = []
    for line in chain(lines, [SEPARATOR]):
        if not _SEPARATOR_LINE.fullmatch(line):
            part.append(line)
            continue
        text = "".join(part)
        part.clear()
        if text.strip():
            yield text


def split_into_groups(lines: Iterable[str], characters: int = GROUP_CHARACTERS) -> Iterator[str]:
    r"""Cut the lines of a long text into groups of paragraphs.

    A group ends at the first blank line after `characters`, or at the first line end after twice
    as many. Text appended at the end therefore changes only the last group.

    >>> list(split_into_groups(["one\n", "\n", "two\n", "\n", "three"], characters=6))
    ['one\n\ntwo\n\n', 'three']
    """
    group: list[str] = []
    # Groups that are complete only if text follows.
    waiting: list[str] = []
    length = line_ends = 0
    for line in lines:
        if not (line_ends and _BLANK_LINE.fullmatch(line)):
            if line_ends and length >= (characters if line_ends > 1 else 2 * characters):
                waiting.append("".join(group))
                group.clear()
                length = 0
            line_ends = 0
        group.append(line)
        length += len(line)
        line_ends += line.endswith("\n")
        if not line.isspace():
            yield from waiting
            waiting.clear()
    if group:
        yield "".join([*waiting, *group])
