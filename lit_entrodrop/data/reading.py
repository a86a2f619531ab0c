"""Options that determine how the files and rows of a corpus are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Reading:
    """Options of reading; each has the name of a setting of `TextDataModule`.

    Args:
        text_column: Name of the column with plain text.
    """

    text_column: str = "text"


def reading_of(settings: Mapping[str, Any]) -> Reading:
    """Return the options of reading among the settings of a data module.

    >>> reading_of({"text_column": "body", "block_size": 512})
    Reading(text_column='body')
    """
    return Reading(**{field.name: settings[field.name] for field in fields(Reading)})
