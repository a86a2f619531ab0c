"""Whether, where and since when a run overfits, from what it has left in its folder."""

from lit_entrodrop.evaluation.diagnosis.overfitting import RULE, Verdict, judge
from lit_entrodrop.evaluation.diagnosis.run import Diagnosis, diagnose

__all__ = ["RULE", "Diagnosis", "Verdict", "diagnose", "judge"]
