"""Fine-tune causal language models on little text for many epochs, under token regularizers."""

__version__ = "0.1.0"
