"""Strategies that shard: what is one shard unit, and how a model gets into its shards."""

from lit_entrodrop.strategies.fsdp2 import HALF, FSDP2Strategy

__all__ = ["HALF", "FSDP2Strategy"]
