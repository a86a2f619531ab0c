"""Training and evaluation of planned runs in a pool of processes."""
