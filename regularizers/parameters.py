"""The part of a trained parameter that a penalty sees."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ParameterPart:
    """Some numbers of a trained parameter, on the device that stores them.

    Under sharding, no device has the whole parameter, and a long parameter comes in several parts.

    Args:
        name: Name of the parameter, as in the Hugging Face model.
        values: The numbers, ``[n]`` fp32, with gradient.
        initial: Their values before training, ``[n]`` fp32; None unless required.
    """

    name: str
    values: Tensor
    initial: Tensor | None = None
