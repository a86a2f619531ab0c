"""Estimates of memory, time and cost of a run, before it has any device."""
