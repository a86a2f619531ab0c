"""Logs of trainers: finding and reading them."""

from lit_entrodrop.commands.diagnose.logs.finding import FoundLog, find_logs
from lit_entrodrop.commands.diagnose.logs.log import TrainingLog

__all__ = ["FoundLog", "TrainingLog", "find_logs"]
