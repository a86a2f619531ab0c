"""Worker processes of ``benchmarks.peers``: one framework each, which trains by turns."""
