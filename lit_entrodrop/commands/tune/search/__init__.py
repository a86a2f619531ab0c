"""Trials of a search: what to try next, within a budget, on several devices."""
