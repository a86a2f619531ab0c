"""What in the class of a regularizer would otherwise go wrong late, or silently."""

from difflib import get_close_matches

from regularizers.base import Regularizer

HOOKS = tuple(name for name in vars(Regularizer) if name.startswith("on_"))


def require_well_formed(regularizer: object) -> None:
    """Refuse what is no regularizer, and one whose class has a common mistake.

    Args:
        regularizer: as it stands in a list of them.

    Raises:
        TypeError: if it is something else than a regularizer.
        ValueError: if its class calls no ``super().__init__()``, has a method that is named like a
            hook and is none, or keeps its strength as a number.

    >>> from regularizers import EmbeddingDropout
    >>> require_well_formed(EmbeddingDropout())
    """
    kind = type(regularizer).__name__
    if not isinstance(regularizer, Regularizer):
        raise TypeError(
            f"regularizers: expected subclasses of regularizers.Regularizer, got {kind}"
        )
    # What nn.Module sets in its __init__, and nothing else does.
    if "_modules" not in vars(regularizer):
        raise ValueError(
            f"{kind}: expected a module, got one that was not initialized: "
            "call super().__init__() first in its __init__"
        )
    for name in dir(type(regularizer)):
        if name.startswith("on_") and name not in HOOKS and callable(getattr(regularizer, name)):
            [guess] = get_close_matches(name, HOOKS, 1, cutoff=0.0)
            raise ValueError(
                f"{kind}.{name}: expected one of {', '.join(HOOKS)}, got a name that nothing "
                f"calls: did you mean {guess}? What is no hook must not begin with on_"
            )
    strength = getattr(regularizer, "curriculum", None)
    if isinstance(strength, int | float):
        raise ValueError(
            f"{kind}.curriculum: expected a Curriculum, got {strength}: set "
            "self.curriculum = as_curriculum(curriculum), of regularizers.curricula"
        )
