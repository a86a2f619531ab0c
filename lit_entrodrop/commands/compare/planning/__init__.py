"""Planning of a comparison: from its config to runs, each with the complete config for `fit`."""
