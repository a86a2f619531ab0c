"""Monitors of a run, each with settings in YAML."""

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from lit_entrodrop.training.callbacks import (
    EvaluationFiles,
    OverfittingMonitor,
    RunProgressBar,
    Samples,
    TaskScores,
    Throughput,
)

# Defaults of `monitors` in a config. Instances as default arguments would be shared by runs, and
# lazy instances of jsonargparse would slow the start of `fit --help` by a tenth.
DEFAULTS = {
    "evaluations": EvaluationFiles,
    "overfitting": OverfittingMonitor,
    "throughput": Throughput,
    "progress_bar": RunProgressBar,
}


class Monitors:
    """Monitors of a run; null disables one.

    Args:
        evaluations: Evaluation files: the loss of each validation document, for the diagnosis and
            the report.
        overfitting: Warning of overfitting.
        throughput: Speed and memory.
        samples: Texts that the model generates. Disabled by default, as each token takes a forward
            pass.
        task: Scores on a task of your own; null for none. See docs/task.md.
        progress_bar: Progress bar, or lines without a terminal.
    """

    def __init__(
        self,
        evaluations: EvaluationFiles | None = None,
        overfitting: OverfittingMonitor | None = None,
        throughput: Throughput | None = None,
        samples: Samples | None = None,
        task: TaskScores | None = None,
        progress_bar: RunProgressBar | None = None,
    ) -> None:
        self.evaluations = evaluations
        self.overfitting = overfitting
        self.throughput = throughput
        self.samples = samples
        self.task = task
        self.progress_bar = progress_bar

    @classmethod
    def standard(cls) -> "Monitors":
        """Return the monitors that a run has by default."""
        return cls(**{name: kind() for name, kind in DEFAULTS.items()})

    def callbacks(self, subcommand: str | None, shows_progress: bool = True) -> list[L.Callback]:
        """Return the monitors of a subcommand, in the order in which they act.

        Args:
            subcommand: Name of the subcommand.
            shows_progress: Whether to add the progress bar.
        """
        given: list[L.Callback | None] = []
        if subcommand in ("fit", "validate", "test"):
            given = [self.evaluations, self.task]
        if subcommand == "fit":
            # The diagnosis reads the file of the evaluation.
            given += [self.overfitting, self.throughput, self.samples]
        given += [self.progress_bar] if shows_progress else []
        return [callback for callback in given if callback is not None]


def shows_progress(trainer_settings: object) -> bool:
    """Return whether the settings of a trainer enable the progress bar and have no other one."""
    callbacks = getattr(trainer_settings, "callbacks", None) or []
    own = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    wanted = getattr(trainer_settings, "enable_progress_bar", None) is not False
    return wanted and not any(isinstance(callback, ProgressBar) for callback in own)
