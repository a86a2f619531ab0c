"""Ranks, shards and copies that do not wait."""
