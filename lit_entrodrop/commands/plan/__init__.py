"""What a run will take of memory and time, before any device is had."""
