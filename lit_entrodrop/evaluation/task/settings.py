"""Settings of a task."""

from dataclasses import dataclass, field
from typing import Literal

from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.runtime.setting_types import check_types

TaskMetric = Literal["exact_match", "contains", "regex", "choice", "rouge_l"]


@dataclass(eq=False)
class TaskSettings:
    """A task: a file of prompts and answers, and how outputs are scored.

    Args:
        file: Path to the file of items, one per row, in any format that `data.corpus` can have.
        prompt: Column of the prompt: a text, or a list of messages.
        answer: Column of the right answer, or of a list of right answers.
        metric: How an output is scored: `exact_match` and `contains` ignore case and white space;
            `regex` searches it for the answer, a pattern; `choice` asks which of the choices is
            most likely; `rouge_l` is the F-measure of the longest common subsequence of words.
        choices: Column of the list of choices of an item, for `choice`.
        chat: Whether the prompt is rendered with the chat template, as a message of the user.
        stop: Texts that end an output, such as a line break, in addition to the ends of documents
            and turns.
        max_new_tokens: Maximum number of tokens of an output.
        max_items: Maximum number of items; of a larger file, items at equal distances.
        batch_size: Number of items per forward pass of a device.
    """

    file: str
    prompt: str = "prompt"
    answer: str = "answer"
    metric: TaskMetric = "exact_match"
    choices: str = "choices"
    chat: bool = False
    stop: list[str] = field(default_factory=list)
    max_new_tokens: int = 32
    max_items: int = 200
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_types("monitors.task", TaskSettings, vars(self))
        counts = ("max_new_tokens", "max_items", "batch_size")
        check_at_least(1, **{f"monitors.task.{name}": getattr(self, name) for name in counts})
        if not all(self.stop):
            raise ValueError(
                f"monitors.task.stop: expected texts that are not empty, got {self.stop}: set it "
                "to [] for none"
            )
