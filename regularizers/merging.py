"""Merge the requirements of several regularizers."""

from dataclasses import fields
from typing import Any

from regularizers.base import Regularizer, Requirements, curricula_of
from regularizers.curricula import Curriculum


def merged_requirements(regularizers: list[Regularizer]) -> Requirements:
    """Return requirements that satisfy all regularizers.

    Raises:
        ValueError: If two of them require different values of one kind.
    """
    switches = [each.name for each in fields(Requirements) if each.type is bool]
    switches.remove("evaluations")
    return Requirements(
        entropy=_common(regularizers, "entropy", "entropy source", "the same entropy_source"),
        teacher=_common(regularizers, "teacher", "teacher", "the same decay of its weights"),
        holdout_neighbors=_common(
            regularizers,
            "holdout_neighbors",
            "number of holdout neighbors",
            "the same neighbors",
        ),
        top_entropy=_common(
            regularizers, "top_entropy", "number of most likely tokens", "the same number"
        ),
        evaluations=any(map(_follows_evaluations, regularizers)),
        **{
            name: any(getattr(each.requirements, name) for each in regularizers)
            for name in switches
        },
    )


def follows_evaluations(curriculum: Curriculum) -> bool:
    """Return whether a curriculum needs evaluations.

    >>> from regularizers import Constant
    >>> follows_evaluations(Constant(0.2))
    False
    """
    return type(curriculum).on_evaluation is not Curriculum.on_evaluation


def _follows_evaluations(regularizer: Regularizer) -> bool:
    return regularizer.requirements.evaluations or any(
        map(follows_evaluations, curricula_of(regularizer).values())
    )


def _common(regularizers: list[Regularizer], field: str, label: str, remedy: str) -> Any:
    wanted = [(type(each).__name__, getattr(each.requirements, field)) for each in regularizers]
    given = [(name, value) for name, value in wanted if value is not None]
    distinct = {value for _, value in given}
    if len(distinct) > 1:
        raise ValueError(
            f"regularizers: expected one {label} for all, got "
            f"{', '.join(f'{value} of {name}' for name, value in given)}: give them {remedy}"
        )
    return next(iter(distinct), None)
