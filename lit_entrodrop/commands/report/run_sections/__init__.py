"""Sections of the page on one run."""
