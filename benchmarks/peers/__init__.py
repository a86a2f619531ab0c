"""Our ``fit`` against Hugging Face's Trainer and TRL's SFTTrainer: ``python -m benchmarks.peers``.

All train the same random Llama on the same blocks in the same order, in fp32 on a CPU, with fused
AdamW, a constant learning rate and gradients clipped at norm 1; nobody evaluates, saves or
recomputes activations. Each runs in a process of its own, the peers in an environment of their own.
The processes take turns, a few steps each, so that only one computes at a time.
"""
