"""Contents of a run folder: layout, metrics, evaluations and checkpoints."""
