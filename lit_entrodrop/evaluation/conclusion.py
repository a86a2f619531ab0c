"""Conclusion of an analysis: the finding, the numbers behind it and what to do next."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NextStep:
    """An action for the reader.

    Attributes:
        text: What to do and why.
        command: Command line that does it; empty if there is none.
    """

    text: str
    command: str = ""


@dataclass(frozen=True)
class Conclusion:
    """A finding in plain language.

    Attributes:
        headline: The finding, without a final period.
        summary: Paragraph: what was measured, on what text, the numbers and how sure they are.
        next_steps: One to four actions, the most useful first.
    """

    headline: str
    summary: str
    next_steps: list[NextStep] = field(default_factory=list)
