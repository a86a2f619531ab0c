"""Figures, formats and templates that all pages share."""
