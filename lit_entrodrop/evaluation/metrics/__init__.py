"""Metrics of a model, added up over batches and ranks."""
