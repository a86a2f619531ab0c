"""Diagnosis of overfitting from a run folder: which tokens overfit, and from which epoch."""

from lit_entrodrop.evaluation.diagnosis.explanation import ALL
from lit_entrodrop.evaluation.diagnosis.overfitting import RULE, OverfittingVerdict, judge
from lit_entrodrop.evaluation.diagnosis.run import Diagnosis, diagnose

__all__ = ["ALL", "RULE", "Diagnosis", "OverfittingVerdict", "diagnose", "judge"]
