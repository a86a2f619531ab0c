"""Batches of blocks, in an order that resumes exactly."""
