"""Pairs of regularizers that cannot run together, found with a toy model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from lit_entrodrop.cli.messages import one_line
from lit_entrodrop.commands.regularizers.description import Description
from regularizers.base import Regularizer
from regularizers.compose import Regularizers
from regularizers.testing.steps import VOCABULARY, make_step, report_evaluations
from regularizers.testing.toy import ToyLM, first_forward, provide


@dataclass(frozen=True)
class Refusal:
    """Two regularizers that cannot run together.

    Args:
        first: Name of the first regularizer.
        second: Name of the second regularizer.
        reason: Error message, with a remedy.
    """

    first: str
    second: str
    reason: str


def take_step(regularizers: Regularizers) -> ToyLM:
    """Take a training step of a toy model, and return it with its gradients.

    >>> take_step(Regularizers()).head.grad.isfinite().all()
    tensor(True)
    """
    model = ToyLM(dropout=0.1)
    step = provide(model, regularizers, make_step())
    report_evaluations(regularizers)
    regularizers.mean_loss(first_forward(model, regularizers, step), step).backward()
    return model


def why_refused(first: type[Regularizer], second: type[Regularizer]) -> str | None:
    """Build two regularizers with their defaults, and take a training step with both.

    Args:
        first: Class of the regularizer that is applied first.
        second: Class of the other regularizer; may be the same.

    Returns:
        Error message if they cannot run together, else None.

    >>> from regularizers import EmbeddingDropout, EntroDrop
    >>> why_refused(EntroDrop, EmbeddingDropout) is None
    True
    """
    try:
        regularizers = Regularizers([first(), second()])
        regularizers.check(VOCABULARY)
    except ValueError as error:
        return one_line(error)
    # Plug-ins may raise anything, or exit; tests ensure that built-in regularizers do not.
    except (Exception, SystemExit) as error:
        return f"building both raised {type(error).__name__}: {one_line(error)}"
    try:
        take_step(regularizers)
    except (Exception, SystemExit) as error:
        return f"a training step raised {type(error).__name__}: {one_line(error)}"
    return None


def refusals(described: Sequence[Description]) -> list[Refusal]:
    """Return the pairs that cannot run together; pairs of the same class are tried too.

    Args:
        described: Regularizers to combine.
    """
    return _refused(combinations_with_replacement(described, 2))


def refusals_of(one: Description, others: Sequence[Description]) -> list[Refusal]:
    """Return the pairs with one regularizer that cannot run together, that one first.

    Args:
        one: Regularizer to try.
        others: Regularizers to combine it with; it may be one of them.
    """
    return _refused((one, other) for other in others)


def _refused(pairs: Iterable[tuple[Description, Description]]) -> list[Refusal]:
    return [
        Refusal(first.name, second.name, reason)
        for first, second in pairs
        if (reason := why_refused(first.kind, second.kind)) is not None
    ]
