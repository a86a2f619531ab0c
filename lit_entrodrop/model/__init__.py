"""Hugging Face causal LMs: loading, the fused head, sizes and FLOPs."""
