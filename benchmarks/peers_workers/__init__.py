"""One process each: a framework trains, turn by turn, as ``benchmarks.peers`` tells it to."""
