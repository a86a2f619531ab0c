"""Runtime basics: ranks, shards, seeds, steps, copies from the device, and compatibility."""
