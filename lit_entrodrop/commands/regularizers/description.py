"""Describe a regularizer: what it does, needs and costs, and how it is set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from lit_entrodrop.commands.regularizers.docstrings import Documentation, read_docstring
from regularizers.base import Regularizer, Requirements
from regularizers.compose import overrides
from regularizers.curricula import Curriculum

HOOKS = {
    "on_input_ids": "input ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "token weight",
    "on_token_loss": "token loss",
    "on_loss": "mean loss",
}
ENTROPIES = {
    "last_epoch": "entropies of the last epoch",
    "reference": "entropies of a reference model",
    "online": "entropies of a clean pass",
}
# By the fields of Requirements, as far as their names do not say it.
NEEDS = {
    "second_forward": "a second pass",
    "dropout": "dropout in the model",
    "reference": "a reference model",
    "teacher": "a teacher (decay {:g})",
    "holdout_neighbours": "{} holdout neighbours",
    "logits": "all logits",
    "entropy_gradient": "gradients through entropies",
    "divergence": "divergences",
    "evaluations": "validation",
}


@dataclass(frozen=True)
class Setting:
    """An argument of a method.

    Args:
        name: its name.
        default: as a YAML file would hold it; classes are ``{class_path, init_args}``.
        help: what the docstring says of it.
        choices: all values, where there are but a few.
    """

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether a YAML file can hold the default."""
        try:
            _yaml(self.default)
        except yaml.representer.RepresenterError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Description(Documentation):
    """What there is to know about a regularizer, as it is by default.

    Args:
        name: of its class.
        class_path: by which configs name it.
        kind: its class.
        package: the distribution that it comes with.
        version: of the distribution.
        acts_on: which parts of a step its hooks may change.
        needs: what the training loop must provide.
        gradient_passes: forward passes of a step through which gradients flow.
        frozen_passes: forward passes of a step without gradient.
        model_copies: copies of the weights beside those that are trained.
        strength: of its curriculum, at the start and the end of training.
        settings: its arguments.
        companions: what a config sets beside it, so that a run provides what it needs.
    """

    name: str
    class_path: str
    kind: type[Regularizer]
    package: str
    version: str
    acts_on: tuple[str, ...]
    needs: tuple[str, ...]
    gradient_passes: int
    frozen_passes: int
    model_copies: int
    strength: tuple[float, float] | None
    settings: tuple[Setting, ...]
    companions: dict[str, Any] = field(default_factory=dict)

    @property
    def block(self) -> str:
        """The YAML that adds it to a run, with its settings at their defaults."""
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
    """Describe a regularizer.

    Args:
        kind: a class whose settings all have defaults.
        class_path: by which configs name it.
        package: the distribution that it comes with.
        version: of the distribution.
        companions: what a config sets beside it, by section.

    Returns:
        Its description.

    >>> from regularizers import EntroDrop
    >>> describe(EntroDrop, "regularizers.EntroDrop", "lit-entrodrop", "0.1.0").needs
    ('entropies of the last epoch',)
    """
    regularizer = kind()
    required = regularizer.requirements
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
        model_copies=required.reference + (required.teacher is not None),
        strength=_strength(getattr(regularizer, "curriculum", None)),
        settings=settings_of(kind),
        companions=companions or {},
    )


def settings_of(kind: type) -> tuple[Setting, ...]:
    """Return the arguments of a class that a config may name, as jsonargparse reads them.

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
        if name == "entropy" and value is not None:
            yield ENTROPIES[value]
        elif value is not None and value is not False:
            yield NEEDS.get(name, name.replace("_", " ")).format(value)


def _strength(curriculum: object) -> tuple[float, float] | None:
    return (curriculum(0.0), curriculum(1.0)) if isinstance(curriculum, Curriculum) else None


def _choices(hint: object) -> tuple[str, ...]:
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
