"""From a corpus to its packed splits: read, split, tokenize, pack and cache."""
