"""Our ``fit`` against Hugging Face's Trainer and TRL's SFTTrainer: ``python -m benchmarks.peers``.

All trainers train the same random Llama on the same blocks in the same order, in fp32 on a CPU,
with fused AdamW, a constant learning rate and gradients clipped at norm 1. None evaluates, saves or
recomputes activations. Each runs in its own process; the peers have their own environment. The
processes alternate after a few steps, so that only one computes at a time.
"""
