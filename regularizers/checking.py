"""Check regularizer classes for mistakes that would otherwise fail late or silently."""

from difflib import get_close_matches

from regularizers.base import Regularizer

HOOKS = tuple(name for name in vars(Regularizer) if name.startswith("on_"))


def require_well_formed(regularizer: object) -> None:
    """Check that an object is a regularizer whose class has no common mistake.

    Args:
        regularizer: Object to check.

    Raises:
        TypeError: If it is not a regularizer.
        ValueError: If its class does not call ``super().__init__()``, has an unknown hook, or
            stores its strength as a number.

    >>> from regularizers import EmbeddingDropout
    >>> require_well_formed(EmbeddingDropout())
    """
    kind = type(regularizer).__name__
    if not isinstance(regularizer, Regularizer):
        raise TypeError(
            f"regularizers: expected subclasses of regularizers.Regularizer, got {kind}"
        )
    # Only nn.Module.__init__ sets this attribute.
    if "_modules" not in vars(regularizer):
        raise ValueError(
            f"{kind}: expected a module, got one that was not initialized: "
            "call super().__init__() first in its __init__"
        )
    if type(regularizer) is Regularizer:
        raise ValueError(
            "regularizers: expected a subclass of Regularizer, got the base class, which does "
            "nothing: name a regularizer that `lit-entrodrop regularizers` lists"
        )
    for name in dir(type(regularizer)):
        if name.startswith("on_") and name not in HOOKS and callable(getattr(regularizer, name)):
            [guess] = get_close_matches(name, HOOKS, 1, cutoff=0.0)
            raise ValueError(
                f"{kind}.{name}: expected one of {', '.join(HOOKS)}, got an unknown hook: "
                f"did you mean {guess}? Other methods must not begin with on_"
            )
    strength = getattr(regularizer, "curriculum", None)
    if isinstance(strength, int | float):
        raise ValueError(
            f"{kind}.curriculum: expected a Curriculum, got {strength}: set self.curriculum = "
            "as_curriculum(curriculum), from regularizers.curricula"
        )
