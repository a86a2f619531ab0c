"""Regularizers, described by their classes and docstrings."""
