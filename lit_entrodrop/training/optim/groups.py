"""Parameter groups of the optimizer: by name, by depth, and by kind."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lit_entrodrop.runtime.sharding import unsharded_shape
from lit_entrodrop.runtime.spelling import did_you_mean
from lit_entrodrop.training.optim.naming import NamedParameter, depths_of, named_parameters


@dataclass
class ParameterRule:
    """Settings of the parameters whose names match a pattern.

    Args:
        match: Regular expression, searched in the names of parameters as in the Hugging Face model,
            such as ``model.layers.0.self_attn.q_proj.weight``. The first matching rule applies.
        lr: Learning rate, as a factor of the optimizer's.
        weight_decay: Weight decay, as a factor of the optimizer's; null for 1 for matrices and 0
            for vectors.
        freeze: Whether to leave the parameters untrained.
    """

    match: str
    lr: float = 1.0
    weight_decay: float | None = None
    freeze: bool = False

    def __post_init__(self) -> None:
        """Check the pattern and the factors."""
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(
                f"model.groups: expected a regular expression, got {self.match!r} ({error}): "
                "correct it"
            ) from error
        if not 0 < self.lr < math.inf:
            raise ValueError(
                f"model.groups: expected lr > 0, a factor of the optimizer's, got {self.lr} for "
                f"{self.match!r}: correct it, or set freeze to train nothing"
            )
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                "model.groups: expected weight_decay >= 0, a factor of the optimizer's, got "
                f"{self.weight_decay} for {self.match!r}: correct it"
            )
        if self.freeze and (self.lr != 1 or self.weight_decay is not None):
            raise ValueError(
                f"model.groups: expected neither lr nor weight_decay for {self.match!r}, which is "
                f"frozen, got lr {self.lr} and weight_decay {self.weight_decay}: remove them, or "
                "remove freeze"
            )


# Applies where no rule does.
ANY = ParameterRule("")


def freeze(module: nn.Module, rules: Sequence[ParameterRule]) -> None:
    """Freeze the parameters that the rules of ``model.groups`` name.

    Raises:
        ValueError: If a rule applies to no trainable parameter, or nothing is left to train.

    >>> layer = nn.Linear(2, 2)
    >>> freeze(layer, [ParameterRule("bias", freeze=True)])
    >>> [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
    ['weight']
    """
    parameters = named_parameters(module)
    trainable = [each for each in parameters if each.parameter.requires_grad]
    applied = [_first(rules, each) for each in trainable]
    for rule in rules:
        if not any(rule is each for each in applied):
            raise ValueError(f"model.groups: {_unmatched(rule, parameters, trainable)}")
    if rules and all(rule is not None and rule.freeze for rule in applied):
        raise ValueError(
            "model.groups: expected some parameters to train, got freeze for all of them: remove "
            f"{' or '.join(repr(rule.match) for rule in rules if rule.freeze)}"
        )
    for each, applies in zip(trainable, applied, strict=True):
        if applies is not None and applies.freeze:
            each.parameter.requires_grad_(False)


def parameter_groups(
    module: nn.Module,
    rules: Sequence[ParameterRule] = (),
    layer_lr_decay: float = 1.0,
    lr_factors: Mapping[str, float] | None = None,
    separate_hidden: bool = False,
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a module for its optimizer.

    Without settings, matrices decay and vectors do not. Besides ``params``, a group has a ``name``,
    and ``lr_factor`` and ``decay_factor``, by which it multiplies the optimizer's settings.

    Args:
        module: Module that is trained.
        rules: Settings by the names of parameters.
        layer_lr_decay: Learning rate of each transformer block as a factor of that of the next one.
            Embeddings come before the first block; all else has the rate of the last block.
        lr_factors: Further factors of the learning rate, by regular expression.
        separate_hidden: Whether matrices of transformer blocks form groups of their own. In these
            groups ``hidden`` is true, in the others false.

    Raises:
        ValueError: If learning rates depend on transformer blocks, and none is trained; or factors
            of a group multiply to 0 or infinity.

    >>> [(each["name"], len(each["params"])) for each in parameter_groups(nn.Linear(2, 2))]
    [('matrices', 1), ('vectors', 1)]
    """
    depth_of = depths_of(module)
    factors = {pattern: each for pattern, each in (lr_factors or {}).items() if each != 1}
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    trained = [each for each in named_parameters(module) if each.parameter.requires_grad]
    if layer_lr_decay != 1 and not any(depth_of(each).is_block for each in trained):
        raise ValueError(
            "model.layer_lr_decay: expected 1 for a model without trained transformer blocks, got "
            f"{layer_lr_decay}: remove it"
        )
    for named in trained:
        rule, depth = _first(rules, named) or ANY, depth_of(named)
        patterns = [pattern for pattern in factors if named.matches(pattern)]
        # Experts may be stacked in three dimensions.
        hidden = separate_hidden and depth.is_block and len(unsharded_shape(named.parameter)) == 2
        kind = "hidden matrices" if hidden else "matrices" if named.is_matrix else "vectors"
        layer = depth.name if layer_lr_decay != 1 else ""
        decay = float(named.is_matrix) if rule.weight_decay is None else rule.weight_decay
        group: dict[str, Any] = {
            "name": ", ".join(filter(None, [rule.match, layer, *patterns, kind])),
            "params": [],
            "lr_factor": rule.lr
            * layer_lr_decay**depth.below
            * math.prod(factors[pattern] for pattern in patterns),
            "decay_factor": decay,
            **({} if decay else {"weight_decay": 0.0}),
            **({"hidden": hidden} if separate_hidden else {}),
        }
        place = (*rules, ANY).index(rule), -depth.below if layer else 0, len(patterns), kind
        groups.setdefault((*place, group["name"]), group)["params"].append(named.parameter)
    for group in groups.values():
        if not 0 < group["lr_factor"] < math.inf:
            raise ValueError(
                "model.groups: expected factors of the learning rate whose product is above 0 and "
                f"finite, got {group['lr_factor']} for {group['name']}: bring lr, layer_lr_decay "
                "and lora.loraplus_lr_ratio closer to 1"
            )
    return [groups[place] for place in sorted(groups)]


def apply_factors(optimizer: torch.optim.Optimizer) -> None:
    """Multiply learning rate and weight decay of each group of an optimizer by its factors.

    >>> groups = parameter_groups(nn.Linear(2, 2), [ParameterRule("bias", lr=0.5)])
    >>> optimizer = torch.optim.SGD(groups, lr=0.1)
    >>> apply_factors(optimizer)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.05, 0.1]
    """
    for group in optimizer.param_groups:
        for setting, factor in (("lr", "lr_factor"), ("weight_decay", "decay_factor")):
            # A composed optimizer may bring groups of its own.
            if setting in group and group.get(factor, 1) != 1:
                group[setting] = group[setting] * group[factor]


def group_table(groups: Sequence[Mapping[str, Any]], module: nn.Module) -> str:
    """Return a table of parameter groups: name, tensors, parameters, lr and weight decay.

    Args:
        groups: Groups of an optimizer, before or in training.
        module: Module that is trained, whose frozen parameters form the last row.
    """
    rows = [("group", "tensors", "parameters", "lr", "weight decay")]
    for group in groups:
        settings = group.get("initial_lr", group["lr"]), group.get("weight_decay", 0.0)
        rows.append((group["name"], *_counts(group["params"]), *map("{:.4g}".format, settings)))
    if frozen := [each for each in module.parameters() if not each.requires_grad]:
        rows.append(("frozen", *_counts(frozen), "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _counts(parameters: Sequence[nn.Parameter]) -> tuple[str, str]:
    numbers = sum(unsharded_shape(each).numel() for each in parameters)
    return f"{len(parameters):,}", f"{numbers:,}"


def _first(rules: Sequence[ParameterRule], named: NamedParameter) -> ParameterRule | None:
    return next((rule for rule in rules if named.matches(rule.match)), None)


def _unmatched(
    rule: ParameterRule,
    parameters: Sequence[NamedParameter],
    trainable: Sequence[NamedParameter],
) -> str:
    """Explain why a rule applies to no trainable parameter, and what to do."""
    if any(each.matches(rule.match) for each in trainable):
        return (
            f"expected parameters for {rule.match!r}, but an earlier pattern matches all of them: "
            "put it first, or remove it"
        )
    if any(each.matches(rule.match) for each in parameters):
        return (
            f"expected trainable parameters, got {rule.match!r}, which matches only frozen ones: "
            "remove it; under model.lm.lora, match the adapters, such as lora_A"
        )
    names = [name for each in parameters for name in each.names]
    guess = did_you_mean(rule.match, _parts(names, rule.match), f"names are such as {names[0]}")
    return (
        f"expected a pattern that is found in names of parameters, got {rule.match!r}, which "
        f"matches none: {guess}"
    )


def _parts(names: Sequence[str], pattern: str) -> set[str]:
    """Return the parts of dotted names that are as long as a pattern."""
    length = pattern.count(".") + 1
    split = [name.split(".") for name in names]
    return {
        ".".join(parts[start : start + length]) for parts in split for start in range(len(parts))
    }
