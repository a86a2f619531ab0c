"""What each regularizer of this project adds to a training step, at its defaults.

Arms are those of :mod:`benchmarks.step`: real ``Trainer.fit`` runs from the same weights over the
same batches, which take turns, one step at a time. A method that needs dropout in the model trains
one with dropout, and is divided by the plain step of that model. A method that a training as plain
as this refuses is told with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import harness
from benchmarks.live_fit import fine_tuning, topics_data
from benchmarks.step import MODELS, compare
from lit_entrodrop.building import LMConfig
from regularizers import Regularizer
from regularizers.discovery import own_regularizers

DROPOUT = 0.1


def regularizers(
    rounds: int = 10,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    block_size: int = 256,
    batch_size: int = 2,
    models: list[str] = list(MODELS),  # noqa: B006
    only: list[str] | None = None,
) -> Path:
    """Time training steps under each regularizer, by turns in one process.

    Args:
        rounds: timed rounds; in each, every arm takes one step.
        threads: CPU threads.
        device: cpu or cuda.
        out: folder of the results.
        block_size: tokens in a block.
        batch_size: blocks in a batch.
        models: which models, by size of vocabulary.
        only: names of the regularizers; null for all.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    kinds = chosen(only)
    shape = {"device": device, "block_size": block_size, "batch_size": batch_size}
    rows = []
    for model in models:
        for dropout in (0.0, DROPOUT):
            group = {
                name: kind for name, kind in kinds.items() if needs_dropout(kind) == bool(dropout)
            }
            measured = measure(with_dropout(MODELS[model], dropout), group, rounds, **shape)
            rows += [{"model": model, "dropout": dropout, **row} for row in measured]
    return harness.save("regularizers", settings, rows, out)


def chosen(only: Sequence[str] | None) -> dict[str, type[Regularizer]]:
    """Return classes of regularizers by name.

    Args:
        only: their names; None for all.

    Raises:
        ValueError: if there is no such regularizer.

    >>> list(chosen(["EntroDrop"]))
    ['EntroDrop']
    """
    kinds = own_regularizers()
    unknown = sorted({*(only or ())} - {*kinds})
    if unknown:
        raise ValueError(f"only: expected some of {', '.join(kinds)}, got {', '.join(unknown)}")
    return {name: kind for name, kind in kinds.items() if only is None or name in only}


def needs_dropout(kind: type[Regularizer]) -> bool:
    """Tell whether a method needs dropout in the model."""
    return kind().requirements.dropout


def with_dropout(lm: LMConfig, dropout: float) -> LMConfig:
    """Return a model with dropout, or the same one for 0."""
    overrides = {"attention_dropout": dropout} if dropout else {}
    return replace(lm, config_overrides={**lm.config_overrides, **overrides})


def measure(
    lm: LMConfig, kinds: Mapping[str, type[Regularizer]], rounds: int, **shape: Any
) -> list[dict[str, Any]]:
    """Compare methods with plain training of one model; return a row for each.

    Args:
        lm: the model.
        kinds: classes of regularizers by name; none means no row, not even a plain one.
        rounds: timed rounds.
        shape: device, ``block_size`` and ``batch_size``.
    """
    reasons = {name: refusal(lm, kind, **shape) for name, kind in kinds.items()}
    arms: dict[str, list[Regularizer]] = {
        name: [kind()] for name, kind in kinds.items() if not reasons[name]
    }
    rows = compare(lm, {"plain": [], **arms}, rounds, **shape) if arms else []
    return rows + [{"case": name, "refused": why} for name, why in reasons.items() if why]


def refusal(
    lm: LMConfig, kind: type[Regularizer], device: str, block_size: int, batch_size: int
) -> str:
    """Try one step under a method; return why it is refused, or nothing."""
    with TemporaryDirectory() as folder:
        tokens = 2 * block_size * batch_size
        data = topics_data(
            Path(folder), max_train_tokens=tokens, block_size=block_size, batch_size=batch_size
        )
        try:
            live = fine_tuning(lm, [kind()], data, steps=3, device=device)
            live.advance()
        except ValueError as error:
            return str(error)
        live.close()
    return ""


if __name__ == "__main__":
    harness.command_line(regularizers)
