"""The entropy of every token of a corpus: where it comes from, and where it is kept."""
