"""Any Hugging Face causal LM, its head and its sizes."""
