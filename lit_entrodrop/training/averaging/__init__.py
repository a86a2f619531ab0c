"""Averages of the weights over training: EMA, SWA and LAWA."""

from lit_entrodrop.training.averaging.averaging import Averaging
from lit_entrodrop.training.averaging.settings import Average

__all__ = ["Average", "Averaging"]
