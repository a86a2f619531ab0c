"""The contract of regularizers as a test, for yours too; needs pytest.

>>> from regularizers import EmbeddingDropout
>>> class TestEmbeddingDropout(RegularizerContract):
...     regularizer = EmbeddingDropout
"""

from regularizers.testing.contract import RegularizerContract
from regularizers.testing.steps import make_step
from regularizers.testing.toy import ToyLM, training_loss

__all__ = ["RegularizerContract", "ToyLM", "make_step", "training_loss"]
