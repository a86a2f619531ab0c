"""Documents cut into chunks, and chunks packed into blocks."""
