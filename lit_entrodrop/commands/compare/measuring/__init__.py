"""Metrics of finished runs, from their folders or from the results of earlier comparisons."""
