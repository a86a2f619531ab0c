"""Settings that select the tokens that are labels."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

TrainOn = Literal["completions", "all", "last_turn"]
LongPairs = Literal["truncate_prompt", "drop", "split", "error"]


@dataclass(frozen=True)
class LabelSettings:
    """Which tokens of prompts and chats are labels; see docs/text.md and docs/chats.md.

    Args:
        train_on: Which part of a prompt with its completion, or of a chat, counts in the loss.
        long_pairs: What becomes of prompts and chats that are longer than a block.
    """

    train_on: TrainOn = "completions"
    long_pairs: LongPairs = "truncate_prompt"

    def key(self) -> dict[str, Any]:
        """Return the settings that are not the default ones.

        >>> LabelSettings("all").key()
        {'train_on': 'all'}
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if value != getattr(DEFAULT_LABELS, name)
        }

    def least_context(self, block_size: int) -> int:
        """Return the least number of tokens before a label in the chunk of a long document."""
        return 1 if self.long_pairs == "split" else block_size // 2


DEFAULT_LABELS = LabelSettings()
