"""Mixing of several sources of training text: weights of a corpus, and replay of general text."""

from lit_entrodrop.data.mixing.settings import Replay

__all__ = ["Replay"]
