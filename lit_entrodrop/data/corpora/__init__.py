"""Read documents out of the files that installed packages ship, without importing them."""
