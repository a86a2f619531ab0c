"""A page that explains what runs did, in one file."""

from lit_entrodrop.commands.report.page import write_report

__all__ = ["write_report"]
