"""Differences between arms, verdicts, multipliers and notes."""
