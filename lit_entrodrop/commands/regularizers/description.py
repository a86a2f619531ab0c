"""Description of a regularizer: effect, needs, cost and settings."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from lit_entrodrop.commands.regularizers.docstrings import Documentation, read_docstring
from lit_entrodrop.commands.regularizers.listing import HOOKS
from regularizers.base import Regularizer, Requirements, overrides
from regularizers.compose import Regularizers
from regularizers.curricula import Curriculum

ENTROPIES = {
    "last_epoch": "entropies of the last epoch",
    "reference": "entropies of a reference model",
    "online": "entropies of a clean pass",
}
# By field of Requirements; other fields are shown by their names.
NEEDS = {
    "second_forward": "a second pass",
    "dropout": "dropout in the model",
    "reference": "a reference model",
    "other_reference": "a reference other than the initial model",
    "teacher": "a teacher (decay {:g})",
    "holdout_neighbors": "{} holdout neighbors",
    "logits": "all logits",
    "entropy_gradient": "gradients through entropies",
    "top_entropy": "entropies among the {} most likely tokens",
    "divergence": "divergences",
    "initial_weights": "the initial weights",
    "initial_copy": "a copy of them on a GPU",
    "evaluations": "validation",
}


@dataclass(frozen=True)
class Setting:
    """Setting of a regularizer."""

    name: str
    default: Any  # as in a YAML file; a class is {class_path, init_args}
    help: str
    choices: tuple[str, ...] = ()  # if they are a fixed set

    @property
    def is_plain(self) -> bool:
        """Whether the default can be written as YAML."""
        try:
            _yaml(self.default)
        except yaml.representer.RepresenterError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Description(Documentation):
    """Description of a regularizer at its defaults."""

    name: str
    class_path: str  # for configs
    kind: type[Regularizer]
    package: str  # distribution that contains it
    version: str
    acts_on: tuple[str, ...]  # parts of a step that its hooks can change
    needs: tuple[str, ...]  # from the training loop
    gradient_passes: int  # forward passes per step with gradient
    frozen_passes: int  # forward passes per step without gradient
    model_copies: int  # copies of the weights in addition to the trained ones
    logits_twice: bool  # whether the fused head computes its logits again in the backward pass
    strength: tuple[float, float] | None  # at the start and at the end of training
    settings: tuple[Setting, ...]
    companions: dict[str, Any] = field(default_factory=dict)  # other settings of a config

    @property
    def block(self) -> str:
        """YAML block that adds it to a run, with all settings at their defaults."""
        entry: dict[str, Any] = {"class_path": self.class_path}
        settings = {each.name: each.default for each in self.settings if each.is_plain}
        if settings:
            entry["init_args"] = settings
        model = {**self.companions.get("model", {}), "regularizers+": [entry]}
        return _yaml({**self.companions, "model": model})


def describe(
    kind: type[Regularizer],
    class_path: str,
    package: str,
    version: str,
    companions: dict[str, Any] | None = None,
) -> Description:
    """Describe a regularizer whose settings all have defaults.

    ``companions`` are other settings of a config that a run with it needs, by section.

    >>> from regularizers import EntroDrop
    >>> describe(EntroDrop, "regularizers.EntroDrop", "lit-entrodrop", "0.1.0").needs
    ('entropies of the last epoch',)
    """
    regularizer = kind()
    required, curriculum = regularizer.requirements, getattr(regularizer, "curriculum", None)
    alone = Regularizers([regularizer])
    return Description(
        **vars(read_docstring(kind.__doc__)),
        name=kind.__name__,
        class_path=class_path,
        kind=kind,
        package=package,
        version=version,
        acts_on=tuple(what for hook, what in HOOKS.items() if overrides(kind, hook)),
        needs=tuple(_needs(required)),
        gradient_passes=1 + required.second_forward,
        frozen_passes=required.frozen_passes,
        model_copies=required.reference + (required.teacher is not None) + required.initial_copy,
        logits_twice=alone.reads_outputs and not alone.reads_parts,
        strength=(curriculum(0.0), curriculum(1.0)) if isinstance(curriculum, Curriculum) else None,
        settings=settings_of(kind),
        companions=companions or {},
    )


def settings_of(kind: type) -> tuple[Setting, ...]:
    """Return the settings of a class, as jsonargparse reads them from a config.

    >>> from regularizers import EmbeddingDropout
    >>> settings_of(EmbeddingDropout)[1].choices
    ('row', 'position', 'element')
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    said = read_docstring(kind.__doc__).arguments
    return tuple(
        Setting(name, default, said.get(name, ""), _choices(hints.get(name)))
        for name, default in parser.get_defaults().as_dict().items()
    )


def _needs(required: Requirements) -> Iterator[str]:
    for name, value in vars(required).items():
        if name == "reads":
            continue
        if name == "entropy" and value is not None:
            yield ENTROPIES[value]
        elif value is not None and value is not False:
            yield NEEDS.get(name, name.replace("_", " ")).format(value)


def _choices(hint: object) -> tuple[str, ...]:
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
