"""What a run will take of memory and time, and which strategy serves it, before any device is had."""
