"""Tokens of one document."""

from collections.abc import Mapping
from typing import NamedTuple


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
