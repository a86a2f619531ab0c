"""`lit-entrodrop doctor`: check a config, its text and its model before an expensive run."""
