"""The packed splits of a corpus, by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lit_entrodrop.data.adjustments import describe_adjustments
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.preparing.splitting import SPLITS
from lit_entrodrop.runs.metric_name import AVERAGED, RESERVED_SPLITS

NOT_EVALUATED = ("train", "replay", "test", "holdout")  # during training
# Splits whose loss is compared with that of held-out text; alone, they are not evaluated.
COMPANIONS = ("clean_train", "forgetting")
SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Names of metrics, and of state in a checkpoint, beside the splits.
RESERVED = RESERVED_SPLITS | {
    *("loss", "perplexity", "accuracy", "memorized", "origin", "corpus_quantiles")
}


@dataclass(frozen=True)
class PackedSplit:
    """The blocks of a split, with counts of its documents.

    Attributes:
        blocks: The blocks.
        documents: Number of documents in the blocks.
        duplicates: Number of documents that repeat an earlier one exactly.
        adjustments: How often text was skipped, cut or changed, by reason.
        formats: Number of documents by the format of their records.
        source_blocks: Number of consecutive blocks of each source; empty for a single source.
    """

    blocks: PackedBlocks
    documents: int
    duplicates: int
    adjustments: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    source_blocks: Sequence[int] = ()

    def describe(self) -> str:
        """Describe the size of the split in one line, without its name."""
        formats = ", ".join(f"{count:,} {name}" for name, count in self.formats.items())
        counts = "; ".join(filter(None, (formats, f"{self.duplicates:,} exact duplicates")))
        line = (
            f"{self.documents:,} documents ({counts}), "
            f"{self.blocks.num_tokens:,} tokens in {len(self.blocks):,} blocks of "
            f"{self.blocks.block_size:,}, {self.blocks.padding:.1%} padding"
        )
        return "; ".join(filter(None, (line, describe_adjustments(self.adjustments))))


class PackedSplits(dict[str, PackedSplit]):
    """Packed splits by name; the error for a missing split names the setting that adds it."""

    def __missing__(self, split: str) -> PackedSplit:
        check_split_name(split, self)
        raise ValueError(
            f"data.{split}: expected the share or corpus of a {split} split, got none: set "
            f"--data.{split}. A model that was trained without this split has seen any share of "
            f"its corpus: name a separate corpus, or train again with --data.{split} 0.1"
        )

    @property
    def held_out(self) -> list[str]:
        """Names of "validation" and of the named evaluation sets, as far as there are any."""
        return [name for name in self if name not in (*NOT_EVALUATED, *COMPANIONS)]

    @property
    def evaluated(self) -> list[str]:
        """Names of the splits on which a model is evaluated during training, in order."""
        held_out = self.held_out
        return [*held_out, *(name for name in COMPANIONS if name in self and held_out)]

    def num_blocks(self, split: str) -> int:
        """Count the blocks of a split; 0 for a split that was not requested."""
        return len(self[split].blocks) if check_split_name(split, self) in self else 0

    def describe(self) -> str:
        """Describe the size of each split, one line per split."""
        return "\n".join(
            f"{name}: {split.describe()}" for name, split in self.items() if name != "clean_train"
        )


def check_split_name(split: str, others: Iterable[str] = ()) -> str:
    """Return the name of a split; a ValueError if neither this package nor `others` have it."""
    known = dict.fromkeys((*SPLITS, *COMPANIONS, *others))
    if split in known:
        return split
    raise ValueError(f"split: expected one of {', '.join(known)}, got {split!r}.")


def check_evaluation_sets(sets: Mapping[str, str | float]) -> dict[str, str]:
    """Return the corpora of named evaluation sets.

    Raises:
        ValueError: If a name cannot be used, or a set is a share of the corpus.

    >>> check_evaluation_sets({"exam": "exam.jsonl"})
    {'exam': 'exam.jsonl'}
    """
    corpora, lower = {}, set[str]()
    for name, corpus in sets.items():
        if not isinstance(name, str) or not SET_NAME.fullmatch(name):
            expected = "a name of at most 64 letters, digits, _ and -"
        elif name.lower() in RESERVED or name.lower().endswith(AVERAGED):
            expected = "a name that no other data or metric has"
        elif name.lower() in lower:
            expected = "names that differ by more than case"
        elif not isinstance(corpus, str):
            raise ValueError(
                f"data.evaluate.{name}: expected a separate corpus, named as in data.corpus, got "
                f"{corpus}: for a share of the corpus set data.validation or data.test"
            )
        else:
            corpora[name] = corpus
            lower.add(name.lower())
            continue
        raise ValueError(f"data.evaluate: expected {expected}, got {name!r}: rename the set")
    return corpora


def sample_blocks(split: PackedSplit, count: int, seed: int) -> PackedSplit:
    """Sample at most `count` blocks without replacement, and keep their order."""
    random, size = np.random.default_rng(seed), len(split.blocks)
    chosen = random.choice(size, min(count, size), replace=False)
    sample = split.blocks.select(np.sort(chosen))
    return PackedSplit(sample, len(np.unique(sample.chunks.documents)), duplicates=0)
