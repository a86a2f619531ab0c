"""Sections of the page on a comparison."""
