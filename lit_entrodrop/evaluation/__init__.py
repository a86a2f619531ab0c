"""Metrics, diagnosis and statistics."""
