"""Run folders, read for the page."""
