"""What each step measures: one module a step, and the table of all."""
