"""Low-rank adapters (LoRA and its kinds), and the 4-bit base model under them (QLoRA)."""
