"""`lit-entrodrop doctor`: look at a config, its text and its model before an expensive run."""
