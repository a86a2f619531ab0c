"""Merge the requirements of several regularizers."""

import re
from collections import Counter
from dataclasses import fields
from typing import Any

from regularizers.base import Regularizer, Requirements, curricula_of, overrides
from regularizers.curricula import Curriculum


def merged_requirements(regularizers: list[Regularizer]) -> Requirements:
    """Return requirements that satisfy all regularizers.

    Raises:
        ValueError: If two of them require different values of one kind.
    """
    switches = [each.name for each in fields(Requirements) if each.type is bool]
    switches.remove("evaluations")
    wanted: dict[str, Any] = {
        name: any(getattr(each.requirements, name) for each in regularizers) for name in switches
    }
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
        **wanted,
    )


def follows_evaluations(curriculum: Curriculum) -> bool:
    """Return whether a curriculum needs evaluations.

    >>> from regularizers import Constant
    >>> follows_evaluations(Constant(0.2))
    False
    """
    return type(curriculum).on_evaluation is not Curriculum.on_evaluation


def reads_parts(regularizers: list[Regularizer]) -> bool:
    """Return whether the head can evaluate the losses of parts of the tokens, in one pass.

    Afterwards, the whole loss can still be transformed, as its gradient is multiplied by a scalar.
    Tokens can be compared with those of one other pass.

    >>> from regularizers import Flooding, ZLoss
    >>> reads_parts([ZLoss(), Flooding(level=1.0)]), reads_parts([Flooding(level=1.0), ZLoss()])
    (True, False)
    """
    chain = [
        each.requirements.reads
        for hook in ("on_token_loss", "on_loss")
        for each in regularizers
        if overrides(type(each), hook)
    ]
    if not chain or chain != sorted(chain, key=("token", "loss", "batch").index):
        return False
    required = merged_requirements(regularizers)
    reading = [each.requirements for each in regularizers if each.requirements.reads == "token"]
    paired = any(each.divergence or each.second_forward for each in reading)
    several = required.second_forward + required.reference + (required.teacher is not None) > 1
    excluded = several or required.entropy_gradient or required.top_entropy is not None
    return not ("batch" in chain or required.logits or (paired and excluded))


def unique_names(regularizers: list[Regularizer]) -> list[str]:
    """Return the names of regularizers in metrics, numbered if one occurs again.

    >>> from regularizers import RDrop, ZLoss
    >>> unique_names([RDrop(), ZLoss(), ZLoss()])
    ['r_drop', 'z_loss', 'z_loss_2']
    """
    seen: Counter[str] = Counter()
    names = []
    for regularizer in regularizers:
        # Split after a lower-case letter, or after a single capital as in RDrop.
        boundary = r"(?<=[a-z0-9])(?=[A-Z])|(?<=^[A-Z])(?=[A-Z][a-z])"
        name = re.sub(boundary, "_", type(regularizer).__name__).lower()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


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
