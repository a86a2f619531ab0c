"""The contents of a run folder."""
