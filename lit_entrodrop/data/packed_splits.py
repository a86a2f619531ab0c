"""The packed splits of a corpus, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_entrodrop.data.adjustments import describe_adjustments
from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.splitting import SPLITS

# The splits on which a model is evaluated during training, in this order.
EVALUATED = ("validation", "clean_train", "forgetting")


@dataclass(frozen=True)
class PackedSplit:
    """The blocks of a split, with counts of its documents.

    Attributes:
        blocks: The blocks.
        documents: Number of documents in the blocks.
        duplicates: Number of documents that repeat an earlier one exactly.
        adjustments: How often text was skipped, cut or changed, by reason.
    """

    blocks: PackedBlocks
    documents: int
    duplicates: int
    adjustments: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str:
        """Describe the size of the split in one line, without its name."""
        line = (
            f"{self.documents:,} documents ({self.duplicates:,} exact duplicates), "
            f"{self.blocks.num_tokens:,} tokens in {len(self.blocks):,} blocks of "
            f"{self.blocks.block_size:,}, {self.blocks.padding:.1%} padding"
        )
        return "; ".join(filter(None, (line, describe_adjustments(self.adjustments))))


class PackedSplits(dict[str, PackedSplit]):
    """Packed splits by name; the error for a missing split names the setting that adds it."""

    def __missing__(self, split: str) -> PackedSplit:
        check_split_name(split)
        raise ValueError(
            f"data.{split}: expected the share or corpus of a {split} split, got none: set "
            f"--data.{split}. A model that was trained without this split has seen any share of "
            f"its corpus: name a separate corpus, or train again with --data.{split} 0.1"
        )

    @property
    def evaluated(self) -> list[str]:
        """Names of the splits on which a model is evaluated during training, in order."""
        return [name for name in EVALUATED if name in self] if "validation" in self else []

    def num_blocks(self, split: str) -> int:
        """Count the blocks of a split; 0 for a split that was not requested."""
        return len(self[split].blocks) if check_split_name(split) in self else 0

    def describe(self) -> str:
        """Describe the size of each split, one line per split."""
        present = [name for name in (*SPLITS, "forgetting") if name in self]
        return "\n".join(f"{name}: {self[name].describe()}" for name in present)


def check_split_name(split: str) -> str:
    """Return the name of a split; a ValueError if no split has this name."""
    known = dict.fromkeys((*SPLITS, *EVALUATED))
    if split in known:
        return split
    raise ValueError(f"split: expected one of {', '.join(known)}, got {split!r}.")
