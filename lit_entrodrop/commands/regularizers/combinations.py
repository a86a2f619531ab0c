"""Pairs of regularizers that cannot run together, found with a toy model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

from lit_entrodrop.commands.regularizers.description import Description
from lit_entrodrop.runtime.shown_text import one_line
from regularizers.base import Regularizer
from regularizers.compose import Regularizers
from regularizers.testing.steps import VOCABULARY, make_step, report_evaluations
from regularizers.testing.toy import ToyLM, first_forward, provide


@dataclass(frozen=True)
class Refusal:
    """Names of two regularizers that cannot run together, and the error message."""

    first: str
    second: str
    reason: str


def take_step(regularizers: Regularizers) -> ToyLM:
    """Take a training step of a toy model, and return it with its gradients."""
    model = ToyLM(dropout=0.1)
    step = provide(model, regularizers, make_step())
    report_evaluations(regularizers)
    regularizers.mean_loss(first_forward(model, regularizers, step), step).backward()
    return model


def why_refused(first: type[Regularizer], second: type[Regularizer]) -> str | None:
    """Return the error of a training step with two regularizers at their defaults, if any.

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


def refusals(described: Sequence[Description], one: Description | None = None) -> list[Refusal]:
    """Return the pairs that cannot run together, or those with one regularizer, that one first.

    Pairs of the same class are tried too.
    """
    pairs = combinations_with_replacement(described, 2)
    return [
        Refusal(first.name, second.name, reason)
        for first, second in (pairs if one is None else product([one], described))
        if (reason := why_refused(first.kind, second.kind)) is not None
    ]
