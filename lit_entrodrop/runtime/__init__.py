"""What every room stands on: ranks, shards, seeds and copies from the device."""
