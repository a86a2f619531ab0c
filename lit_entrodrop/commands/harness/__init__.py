"""Run tasks of lm-evaluation-harness on a checkpoint."""
