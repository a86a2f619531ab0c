"""Arms at matched seeds, data order and token budget: trained, put side by side, and judged."""
