"""What runs did: a table, a picture, and a page that explains itself."""

from lit_entrodrop.report.page import write_report
from lit_entrodrop.report.summary import plot_curves, summarize, table

__all__ = ["plot_curves", "summarize", "table", "write_report"]
