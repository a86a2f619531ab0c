"""Memory, passes and time of a step, from its config alone."""
