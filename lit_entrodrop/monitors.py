"""What watches a run, each switched and set in YAML."""

import lightning as L
from jsonargparse.typing import lazy_instance

from lit_entrodrop.callbacks import EvaluationFiles, OverfittingMonitor


class Monitors:
    """What watches a run; null switches one off.

    Args:
        evaluations: keeps the loss of each validation document, for diagnosis and report.
        overfitting: warns as soon as the model overfits.
    """

    def __init__(
        self,
        evaluations: EvaluationFiles | None = lazy_instance(EvaluationFiles),  # noqa: B008
        overfitting: OverfittingMonitor | None = lazy_instance(OverfittingMonitor),  # noqa: B008
    ) -> None:
        self.evaluations = evaluations
        self.overfitting = overfitting

    def callbacks(self) -> list[L.Callback]:
        """Return those that are on, in the order in which they act."""
        given = (self.evaluations, self.overfitting)
        return [callback for callback in given if callback is not None]
