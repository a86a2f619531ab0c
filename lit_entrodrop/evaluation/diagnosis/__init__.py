"""Rules that decide whether a model overfits, applied to a run folder or to loss curves alone."""

from lit_entrodrop.evaluation.diagnosis.explanation import ALL
from lit_entrodrop.evaluation.diagnosis.overfitting import RULE, OverfittingVerdict, judge
from lit_entrodrop.evaluation.diagnosis.run import Diagnosis, diagnose

__all__ = ["ALL", "RULE", "Diagnosis", "OverfittingVerdict", "diagnose", "judge"]
