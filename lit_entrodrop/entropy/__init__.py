"""Entropy of every token of a corpus: scoring, storage, and its use in a run."""
