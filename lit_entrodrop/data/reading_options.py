"""Options that determine how the files and rows of a corpus are read."""

from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class ReadingOptions:
    r"""Options of reading; each has the name of a setting of `TextDataModule`.

    Args:
        format: Format of all records, or "auto".
        columns: Own names of columns, by standard column.
        encoding: Name of a Python codec, the encoding of text files.
        delimiter: Character between the columns of .csv and .tsv files, or `\t`; None for a comma
            in .csv and a tab in .tsv.

    Attributes:
        seen: Names of the columns of the records that were read.

    Raises:
        ValueError: If the encoding is unknown, or the delimiter is no single character.
    """

    format: str = "auto"
    columns: Mapping[str, str] | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    seen: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        try:
            getincrementaldecoder(self.encoding)
            "a".encode(self.encoding)  # Some codecs, such as base64, encode no text.
        except (LookupError, ValueError) as error:
            raise ValueError(
                "data.encoding: expected a text codec of Python, such as utf-8, utf-16, latin-1 or "
                f"cp1252, got {self.encoding!r}. Correct the name."
            ) from error
        if self.delimiter == r"\t":  # as it is written in a shell
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in '"\r\n\0\ufeff'
        ):
            raise ValueError(
                "data.delimiter: expected one character, such as ';' or '\\t', got "
                f"{self.delimiter!r}. Use null for a comma in .csv and a tab in .tsv."
            )

    @property
    def own_names(self) -> Mapping[str, str]:
        """Own names of columns; empty without any."""
        return self.columns or {}


def reading_options(settings: Mapping[str, Any]) -> ReadingOptions:
    """Return the options of reading among the settings of a data module.

    >>> settings = {"format": "text", "columns": None, "encoding": "utf-8", "delimiter": ";"}
    >>> reading_options({**settings, "block_size": 512})
    ReadingOptions(format='text', columns=None, encoding='utf-8', delimiter=';')
    """
    names = [each.name for each in fields(ReadingOptions) if each.init]
    return ReadingOptions(**{name: settings[name] for name in names})
