"""Estimates of memory, time and cost of a run, made without its devices."""
