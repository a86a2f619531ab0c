"""Checkpoints of any strategy, read without running code from a pickle."""
