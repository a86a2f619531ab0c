"""`lit-entrodrop preview`: show what a config trains on, token by token."""
