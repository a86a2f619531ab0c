"""Tokens of one document."""

from collections.abc import Mapping
from typing import NamedTuple

Span = tuple[int, int]  # of characters: start and end


class Encoded(NamedTuple):
    """Tokens of one document.

    Attributes:
        ids: Token ids.
        counted: Whether the loss counts each token as a label.
        adjustments: How often text was skipped, cut or changed, by reason.
    """

    ids: list[int]
    counted: list[bool]
    adjustments: Mapping[str, int] = {}
