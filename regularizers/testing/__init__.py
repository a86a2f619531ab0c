"""The contract of regularizers as a pytest class, for other packages too; only it needs pytest.

>>> from regularizers import EmbeddingDropout
>>> from regularizers.testing import RegularizerContract
>>> class TestEmbeddingDropout(RegularizerContract):
...     regularizer = EmbeddingDropout
"""

from typing import TYPE_CHECKING, Any

from regularizers.testing.steps import make_step
from regularizers.testing.toy import ToyLM, training_loss

if TYPE_CHECKING:
    from regularizers.testing.contract import RegularizerContract

__all__ = ["RegularizerContract", "ToyLM", "make_step", "training_loss"]


def __getattr__(name: str) -> Any:
    if name == "RegularizerContract":
        from regularizers.testing.contract import RegularizerContract

        return RegularizerContract
    raise AttributeError(f"module 'regularizers.testing' has no attribute {name!r}")
