"""Regularizers for lit-entrodrop."""
