"""Plain text (.txt), cut into documents at `<|endoftext|>` lines."""

import re
from collections.abc import Iterator
from itertools import pairwise

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".txt",)
SEPARATOR = "<|endoftext|>"
GROUP_CHARACTERS = 4_000

_SEPARATOR_LINE = re.compile(rf"^[ \t]*{re.escape(SEPARATOR)}[ \t]*\r?$\n?", re.MULTILINE)
_LINE_ENDS = re.compile(r"\n(?:[ \t\r]*\n)*")


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one document per part between separator lines.

    Without separator lines, a file that is alone is cut into groups of paragraphs; any other file
    is one document.
    """
    text = file.read_text()
    parts = split_at_separators(text)
    if file.alone and parts == [text]:
        parts = split_into_groups(text)
    for number, part in enumerate(parts, start=1):
        yield Record(f"{file.path} part {number}", part)


def split_at_separators(text: str) -> list[str]:
    r"""Cut a text at lines with only `<|endoftext|>` into its non-blank parts.

    >>> split_at_separators("a\n<|endoftext|>\nb\n")
    ['a\n', 'b\n']
    """
    return [part for part in _SEPARATOR_LINE.split(text) if part.strip()]


def split_into_groups(text: str, characters: int = GROUP_CHARACTERS) -> list[str]:
    r"""Cut a long text into groups of paragraphs.

    A group ends at the first blank line after `characters`, or at the first line end after twice
    as many. Text appended at the end therefore changes only the last group.

    >>> split_into_groups("one\n\ntwo\n\nthree", characters=6)
    ['one\n\ntwo\n\n', 'three']
    """
    cuts = [0]
    for match in _LINE_ENDS.finditer(text.rstrip()):
        blank_line = match.group().count("\n") > 1
        if match.end() - cuts[-1] >= (characters if blank_line else 2 * characters):
            cuts.append(match.end())
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]
