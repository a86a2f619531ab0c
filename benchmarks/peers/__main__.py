"""``python -m benchmarks.peers``."""

from benchmarks.harness import command_line
from benchmarks.peers.comparison import peers

if __name__ == "__main__":
    command_line(peers)
