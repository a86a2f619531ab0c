"""What watches a run, each switched and set in YAML."""

from collections.abc import Sequence

import lightning as L
from jsonargparse.typing import lazy_instance
from lightning.pytorch.callbacks import ProgressBar

from lit_entrodrop.training.callbacks import (
    EvaluationFiles,
    OverfittingMonitor,
    RunProgressBar,
    Samples,
    Throughput,
)


class Monitors:
    """What watches a run; null switches one off.

    Args:
        evaluations: keeps the loss of each validation document, for diagnosis and report.
        overfitting: warns as soon as the model overfits.
        throughput: measures speed and memory.
        samples: lets the model write; off unless set, as each token takes a forward pass.
        progress_bar: shows where the run stands.
    """

    def __init__(
        self,
        evaluations: EvaluationFiles | None = lazy_instance(EvaluationFiles),  # noqa: B008
        overfitting: OverfittingMonitor | None = lazy_instance(OverfittingMonitor),  # noqa: B008
        throughput: Throughput | None = lazy_instance(Throughput),  # noqa: B008
        samples: Samples | None = None,
        progress_bar: RunProgressBar | None = lazy_instance(RunProgressBar),  # noqa: B008
    ) -> None:
        self.evaluations = evaluations
        self.overfitting = overfitting
        self.throughput = throughput
        self.samples = samples
        self.progress_bar = progress_bar

    def callbacks(self, subcommand: str | None, shows_progress: bool = True) -> list[L.Callback]:
        """Return those that watch a subcommand, in the order in which they act.

        Args:
            subcommand: of the program.
            shows_progress: whether there is room for a progress bar.
        """
        given: Sequence[L.Callback | None] = ()
        if subcommand == "fit":
            # The diagnosis reads what an evaluation has written.
            given = (self.evaluations, self.overfitting, self.throughput, self.samples)
        elif subcommand in ("validate", "test"):
            given = (self.evaluations,)
        if subcommand == "fit" and shows_progress:
            given = (*given, self.progress_bar)
        return [callback for callback in given if callback is not None]


def shows_progress(trainer_settings: object) -> bool:
    """Tell whether a trainer wants a progress bar and has none of its own.

    Args:
        trainer_settings: with ``enable_progress_bar`` and ``callbacks``.
    """
    callbacks = getattr(trainer_settings, "callbacks", None) or []
    own = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    wanted = getattr(trainer_settings, "enable_progress_bar", None) is not False
    return wanted and not any(isinstance(callback, ProgressBar) for callback in own)
