"""Regularizers for language-model training, in pure PyTorch.

Works in any loop: see ``examples/`` for a bare PyTorch loop and the Hugging Face Trainer.
"""

from regularizers.base import (
    Outputs,
    Regularizer,
    Requirements,
    TokenLoss,
    TrainingStep,
    Vocabulary,
)
from regularizers.compose import Regularizers, perturbed_embeddings
from regularizers.curricula import Constant, Cosine, Curriculum, Linear, Sigmoid, Step
from regularizers.embedding_dropout import EmbeddingDropout
from regularizers.entrodrop import EntroDrop
from regularizers.random_token_dropout import RandomTokenDropout

__all__ = [
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
