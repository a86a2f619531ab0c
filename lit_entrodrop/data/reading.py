"""Options that determine how the files and rows of a corpus are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Reading:
    """Options of reading; each has the name of a setting of `TextDataModule`.

    Args:
        format: Name of the shape of all records, or "auto".
        columns: Own names of columns, by standard column.

    Attributes:
        seen: Names of the columns of the records that were read.
    """

    format: str = "auto"
    columns: Mapping[str, str] | None = None
    seen: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    @property
    def own_names(self) -> Mapping[str, str]:
        """Own names of columns; empty without any."""
        return self.columns or {}


def reading_of(settings: Mapping[str, Any]) -> Reading:
    """Return the options of reading among the settings of a data module.

    >>> reading_of({"format": "text", "columns": None, "block_size": 512})
    Reading(format='text', columns=None)
    """
    return Reading(**{each.name: settings[each.name] for each in fields(Reading) if each.init})
