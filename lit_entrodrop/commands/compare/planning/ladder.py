"""Ladder of nested parts of the training text, for the unique-data multiplier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ladder:
    """Shares of the training text on which the baseline is trained, and the share of the arms.

    Args:
        shares: Shares of the tokens, increasing; the last is 1.
        at: Share on which all other arms are trained, one of the shares.
    """

    shares: tuple[float, ...]
    at: float

    def run_count(self, arms: int, seeds: int) -> int:
        """Return the number of runs that the ladder adds to a comparison.

        >>> Ladder((0.25, 0.5, 1.0), 0.5).run_count(arms=2, seeds=3)
        9
        """
        of_arms = arms - 1 if self.at < 1 else 0
        return seeds * (len(self.shares) - 1 + of_arms)


def read_ladder(shares: Any, at: Any) -> Ladder | None:
    """Check the keys ``ladder`` and ``ladder_at`` of a config; None without a ladder.

    Raises:
        ValueError: If they are wrong.
    """
    if shares is not None:
        return parse_ladder(shares, at)
    if at is not None:
        raise ValueError("ladder_at: expected `ladder` with it, got none: set both")
    return None


def parse_ladder(shares: Any, at: Any = None) -> Ladder:
    """Check the shares of a ladder, and the one for all arms except the baseline.

    Args:
        shares: Shares of the training text, the whole of it among them.
        at: Share for the arms. Default: the largest one below the whole, so that a better arm still
            is on the curve of the baseline.

    Raises:
        ValueError: If the shares are wrong.

    >>> parse_ladder([1, 0.5, 0.25])
    Ladder(shares=(0.25, 0.5, 1.0), at=0.5)
    """
    given = list(shares) if isinstance(shares, Sequence) and not isinstance(shares, str) else []
    if (
        len(given) < 2
        or any(type(share) not in (int, float) or not 0 < share <= 1 for share in given)
        or len(set(given)) < len(given)
        or max(given) != 1
    ):
        raise ValueError(
            f"ladder: expected two or more different shares of the training text up to 1, got "
            f"{shares}: write for example [0.25, 0.5, 1]"
        )
    rungs = tuple(sorted(map(float, given)))
    if at is not None and at not in rungs:
        raise ValueError(f"ladder_at: expected one of {list(rungs)}, got {at}: name a share")
    return Ladder(rungs, rungs[-2] if at is None else float(at))
