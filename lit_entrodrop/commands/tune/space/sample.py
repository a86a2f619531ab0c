"""A point of the space of a search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lit_entrodrop.commands.compare.planning.strengths import trial_name

PLAIN = "plain"
JOINT = " + "  # of the names of methods


@dataclass(frozen=True)
class Sample:
    """Values that a trial tries.

    Args:
        plain: Values of the settings that plain fine-tuning has too, by dotted name.
        alternatives: Chosen alternative and its strengths, by group; none that changes nothing.
        settings: Values of further settings, by dotted name.
    """

    plain: Mapping[str, Any]
    alternatives: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether this is plain fine-tuning."""
        return not self.alternatives and not self.settings

    @property
    def label(self) -> str:
        """Names of the methods.

        >>> Sample({}, {"method": ("dropout", {"rate": 0.1}), "average": ("ema", {})}).label
        'dropout + ema'
        """
        return JOINT.join(name for name, _ in self.alternatives.values()) or (
            "other settings" if self.settings else PLAIN
        )

    @property
    def first(self) -> str:
        """Name of the first method alone.

        >>> Sample({}, {"method": ("dropout", {"rate": 0.1}), "average": ("ema", {})}).first
        'dropout'
        """
        return self.label.partition(JOINT)[0]

    @property
    def description(self) -> str:
        """Methods and all values, for display.

        >>> Sample({"trainer.max_epochs": 9}, {"method": ("dropout", {"rate": 0.1})}).description
        'dropout, rate=0.1, max_epochs=9'
        """
        strengths = [strengths for _, strengths in self.alternatives.values()]
        values = [*strengths, self.settings, self.plain]
        return ", ".join(filter(None, [self.label, *map(trial_name, values)]))
