"""Metrics of finished runs, differences between arms, verdicts and notes."""
