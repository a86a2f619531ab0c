"""Diagnose training from the logs of any trainer."""
