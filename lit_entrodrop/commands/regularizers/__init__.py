"""What regularizers there are, as their classes and docstrings tell it."""
