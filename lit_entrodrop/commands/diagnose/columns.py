"""Names of the training and the validation losses in a log."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lit_entrodrop.runtime.spelling import did_you_mean

LOSS = {"loss", "nll"}
TRAINING = {"train", "training"}
VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev"}
FREQUENCIES = ("step", "", "epoch")  # in Lightning's names; values of single steps show most
MOST_NAMED = 12


@dataclass(frozen=True)
class LossColumns:
    """Names of the losses in a log.

    Attributes:
        training: Name of the training loss; None if there is none.
        validations: Names of the validation losses; the first one decides the headline.
    """

    training: str | None
    validations: list[str]


def loss_columns(
    names: Sequence[str], training: str | None = None, validation: str | None = None
) -> LossColumns:
    """Find the losses among the logged names.

    Args:
        names: All logged names.
        training: Name of the training loss, if it should not be guessed.
        validation: Name of the validation loss, if it should not be guessed.

    Raises:
        ValueError: If a given name was not logged, or no name is that of a loss.

    >>> loss_columns(["epoch", "step", "train_loss_epoch", "train_loss_step", "val_loss"])
    LossColumns(training='train_loss_step', validations=['val_loss'])
    >>> loss_columns(["loss", "eval_wiki_loss", "eval_loss", "eval_runtime"]).validations
    ['eval_loss', 'eval_wiki_loss']
    """
    _require(names, training, "train")
    _require(names, validation, "validation")
    found = [training] if training else _matching(names, TRAINING, LOSS)
    validations = _matching(names, VALIDATION)
    if validation:
        validations = [validation, *(name for name in validations if name != validation)]
    if not found and not validations:
        raise ValueError(
            "expected a training or validation loss, found no name with `loss` among "
            f"{_some(names)}: overfitting is judged by losses; name them with --train and "
            "--validation, or log them"
        )
    return LossColumns(found[0] if found else None, validations)


def words_of(name: str) -> list[str]:
    """Return the words of a logged name in lower case.

    >>> words_of("val/ceLoss_epoch"), words_of("trainloss")
    (['val', 'ce', 'loss', 'epoch'], ['train', 'loss'])
    """
    separated = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return re.findall(r"[a-z]+(?=loss(?![a-z]))|loss(?![a-z])|[a-z]+|\d+", separated)


def _matching(names: Iterable[str], role: set[str], bare: Collection[str] = ()) -> list[str]:
    """Return the losses of a role, those with the fewest other words first."""
    ranked: dict[tuple[str, ...], list[tuple[int, int, str]]] = {}
    for name in names:
        words = words_of(name)
        others = [word for word in words if word not in LOSS | role | set(FREQUENCIES)]
        often = next((word for word in reversed(words) if word in FREQUENCIES), "")
        if not LOSS & set(words) or not (role & set(words) or (bare and words[0] in bare)):
            continue
        if not role & set(words) and others:
            continue
        order = FREQUENCIES if bare else FREQUENCIES[::-1]
        place = (len(others), order.index(often), name)
        ranked.setdefault(tuple(others), []).append(place)
    return [min(group)[-1] for group in sorted(ranked.values(), key=min)]


def _require(names: Sequence[str], name: str | None, option: str) -> None:
    if name is not None and name not in names:
        raise ValueError(
            f"{option}: expected a logged name, got {name}: "
            + did_you_mean(name, names, f"logged are {_some(names)}")
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
