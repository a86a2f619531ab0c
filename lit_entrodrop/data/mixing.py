"""Settings of mixing: replay, and the weights of a corpus."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.runtime.setting_types import check_types

# A class instead of the mapping would make the parser read the file that a path names.
Corpus = str | Sequence[str | Mapping[str, Any]]

# Names of the sources of a run with replay: its own text, if that is one source, and the other.
DOMAIN, REPLAY = "domain", "replay"
NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")


@dataclass(frozen=True)
class Replay:
    """General text that is mixed into each batch, against forgetting.

    Replay is added to the epoch: with a share s, an epoch reads the training text once, and
    s / (1 − s) times as many tokens of replay. Documents of evaluation text are left out.

    Args:
        corpus: General text, named as in `data.corpus`.
        share: Share of replay among the training tokens that count in the loss, in [0, 1). 0 for
            no replay.
        max_tokens: Maximum number of tokens that are prepared: whole documents, sampled by a
            seeded hash. If an epoch or a run needs more, they are read repeatedly.
        regularize: Whether regularizers apply to replay too. By default they do not, because
            replay is hardly ever repeated and so does not overfit.

    Raises:
        ValueError: If a setting is out of range.
    """

    corpus: str | list[str]
    share: float = 0.05
    max_tokens: int = 10_000_000
    regularize: bool = False

    def __post_init__(self) -> None:
        check_types("data.replay", Replay, vars(self))
        check_at_least(2, **{"data.replay.max_tokens": self.max_tokens})
        if not 0 <= self.share < 1:
            raise ValueError(
                "data.replay.share: expected the share of replay among the training tokens, at "
                f"least 0 and below 1, got {self.share}: set it to 0.05 for 5%"
            )

    @property
    def sources(self) -> list[str]:
        """The sources of the text."""
        return sources_of(self.corpus)


@dataclass(frozen=True)
class WeightedSource:
    """A source of the corpus with a weight.

    Args:
        source: Path or name of the source, as in `data.corpus`.
        weight: Relative number of readings: an epoch reads each block of a source of weight 2 twice
            as often as one of weight 1. A source of n blocks and weight w gets the share
            w·n / Σ w·n of an epoch, which stays as long as all blocks together.
        name: Name of the source in metrics; by default the last part of `source`, without suffix.

    Raises:
        ValueError: If the weight is not a positive number.
    """

    source: str
    weight: float = 1.0
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise TypeError("the source is not text")
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"data.corpus: expected a weight above 0 for {self.source}, got {self.weight}: "
                "remove a source that should not be read"
            )

    @property
    def label(self) -> str:
        """Name of the source in metrics.

        >>> WeightedSource("notes/2024.jsonl.gz").label, WeightedSource("registry:hpo").label
        ('2024', 'hpo')
        """
        return self.name or PurePath(self.source.rpartition(":")[2]).name.partition(".")[0]


def sources_of(corpus: Corpus) -> list[str]:
    """Return the sources of a corpus, without weights.

    >>> sources_of(["a.txt", {"source": "b.txt", "weight": 2.0}])
    ['a.txt', 'b.txt']
    """
    return [each.source for each in _weighted(corpus)]


def weights_of(corpus: Corpus) -> dict[str, float]:
    """Return the weights of a corpus by name of the source; empty if no source has one.

    A source without a weight has weight 1.

    Raises:
        ValueError: If two sources have the same name, or one has the name of replay.

    >>> weights_of(["a.txt", {"source": "b.txt", "weight": 2.0}]), weights_of(["a.txt", "b.txt"])
    ({'a': 1.0, 'b': 2.0}, {})
    """
    if isinstance(corpus, str) or all(isinstance(each, str) for each in corpus):
        return {}
    listed = _weighted(corpus)
    names = Counter([*(each.label for each in listed), DOMAIN, REPLAY])
    for each in listed:
        if not isinstance(each.label, str) or not NAME.fullmatch(each.label):
            raise ValueError(
                "data.corpus: expected a name of at most 200 characters, without slashes and "
                f"control characters, got {each.label!r} for {each.source}: add `name: …` to it"
            )
        if names[each.label] > 1:
            raise ValueError(
                f"data.corpus: expected a distinct name for each source, got {each.label!r} for "
                f"{each.source}, which names another one or all of them: add `name: …` to it"
            )
    return {each.label: each.weight for each in listed}


def _weighted(corpus: Corpus) -> list[WeightedSource]:
    listed = [_as_source(each) for each in ([corpus] if isinstance(corpus, str) else corpus)]
    if not listed:
        raise ValueError("data.corpus: expected at least one source, got []: name one")
    return listed


def _as_source(given: str | Mapping[str, Any]) -> WeightedSource:
    try:
        return WeightedSource(given) if isinstance(given, str) else WeightedSource(**given)
    except TypeError as error:
        raise ValueError(
            "data.corpus: expected a source, or {source: PATH, weight: NUMBER, name: NAME}, got "
            f"{given}: correct it"
        ) from error
