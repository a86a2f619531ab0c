"""One script per claim: ``python -m benchmarks.step``; results go to ``benchmarks/results``."""
