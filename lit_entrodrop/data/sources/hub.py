"""Data sets of the Hugging Face hub, or of a local folder in its layout."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from lit_entrodrop.data.file_formats.arrow_rows import ROWS_AT_A_TIME, read_rows
from lit_entrodrop.model.hub import use_cache_if_unreachable

HUB = "hub:"

_SOURCE = re.compile(
    HUB + r"(?P<path>[^:@\[\]]+)(:(?P<config>[^@\[\]]+))?(@(?P<revision>[^\[\]]+))?"
    r"(\[(?P<split>.+)\])?"
)


class HubDataset(NamedTuple):
    """A split of a dataset; `datasets` chooses a config or revision that is None."""

    path: str
    config: str | None = None
    revision: str | None = None
    split: str = "train"


def parse_hub(source: str) -> HubDataset:
    """Parse `hub:org/name:config@revision[split]`; all after the name is optional.

    Raises:
        ValueError: If the source has another form.

    >>> parse_hub("hub:org/name:en@v1.0[test]")
    HubDataset(path='org/name', config='en', revision='v1.0', split='test')
    >>> parse_hub("hub:org/name")
    HubDataset(path='org/name', config=None, revision=None, split='train')
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise ValueError(
            "data.corpus: expected hub:org/name:config@revision[split], where all after the name "
            f"is optional, got {source!r}. Correct it."
        )
    return HubDataset(**{name: part for name, part in match.groupdict().items() if part})


def read_hub(source: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset."""
    dataset = _load(source).with_format("arrow")
    yield from read_rows(dataset.features.arrow_schema, dataset.iter(ROWS_AT_A_TIME))


# Cached because the corpus is read twice: to hash it, then to pack it.
@cache
def _load(source: str) -> Any:
    from datasets import load_dataset

    path, config, revision, split = parse_hub(source)
    unreachable = use_cache_if_unreachable()
    try:
        return load_dataset(path, config, revision=revision, split=split)
    except Exception as error:  # the files of a dataset can fail anywhere in its readers
        reason = " ".join(str(error).split()).rstrip(".")
        if unreachable:
            reason += f": {unreachable}"
        raise ValueError(
            f"data.corpus: cannot load {source}: {reason}. Correct the name "
            "(hub:org/name:config@revision[split]), log in with 'hf auth login' for a private or "
            "gated dataset, or download its files and name their folder."
        ) from error
