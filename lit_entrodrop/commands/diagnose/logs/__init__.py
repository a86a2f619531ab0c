"""Logs of trainers: where they are, and how they are read."""

from lit_entrodrop.commands.diagnose.logs.finding import FoundLog, find_logs
from lit_entrodrop.commands.diagnose.logs.log import TrainingLog

__all__ = ["FoundLog", "TrainingLog", "find_logs"]
