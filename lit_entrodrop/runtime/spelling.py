"""Suggestions for misspelled names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: str, known: Iterable[str], otherwise: str, similarity: float = 0.6) -> str:
    """Suggest the known name that is most similar to a given one.

    Args:
        given: Name that the user gave.
        known: Valid names.
        otherwise: Text to return if no name is similar.
        similarity: Lowest share of equal letters.

    >>> did_you_mean("entro_drop", ["EntroDrop", "ZLoss"], "see --help")
    'did you mean EntroDrop?'
    """
    spelled = {_letters(each): each for each in known}
    similar = get_close_matches(_letters(given), spelled, 1, similarity)
    return f"did you mean {spelled[similar[0]]}?" if similar else otherwise


def _letters(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()
