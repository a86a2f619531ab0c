"""One HTML page that explains runs: the finding, its numbers, all curves."""

from lit_entrodrop.commands.report.page import write_report

__all__ = ["write_report"]
