"""All measurements on a single GPU, in order of worth under a clock.

``python -m benchmarks.gpu_campaign --minutes 10``, and ``--rehearse true`` for the same on a CPU
with tiny sizes; ``benchmarks/gpu.md`` says what the machine needs. NO GPU HAS RUN THIS YET.
"""
