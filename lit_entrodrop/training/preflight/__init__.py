"""Checks before training: of the config, of the model and of a checkpoint."""
