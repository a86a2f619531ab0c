"""Reading of checkpoints of any strategy, without running code from a pickle."""
