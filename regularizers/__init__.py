"""Regularizers for language-model training, in pure PyTorch.

Works in any loop: see ``examples/`` for a bare PyTorch loop and the Hugging Face Trainer. Each
method lies in a file of its own; all can be named here too, as in ``regularizers.ZLoss``.
"""

from typing import Any

from regularizers.adaptive import Adaptive
from regularizers.base import Regularizer, Requirements
from regularizers.compose import Regularizers, perturbed_embeddings
from regularizers.curricula import Constant, Cosine, Curriculum, Linear, Sigmoid, Step
from regularizers.embedding_dropout import EmbeddingDropout
from regularizers.entrodrop import EntroDrop
from regularizers.outputs import Outputs, TokenLoss
from regularizers.random_token_dropout import RandomTokenDropout
from regularizers.training_step import TrainingStep, Vocabulary

__all__ = [
    "Adaptive",
    "Constant",
    "Cosine",
    "Curriculum",
    "EmbeddingDropout",
    "EntroDrop",
    "Linear",
    "Outputs",
    "RandomTokenDropout",
    "Regularizer",
    "Regularizers",
    "Requirements",
    "Sigmoid",
    "Step",
    "TokenLoss",
    "TrainingStep",
    "Vocabulary",
    "perturbed_embeddings",
]


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from regularizers.discovery import own_regularizers

        if name in own_regularizers():
            return own_regularizers()[name]
    raise AttributeError(f"module 'regularizers' has no attribute {name!r}")
