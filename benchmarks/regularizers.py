"""Cost of each regularizer at its defaults in a training step: time and memory.

The arms alternate as in :mod:`benchmarks.step`: real ``Trainer.fit`` runs from the same weights on
the same batches. A method that needs dropout trains a model with dropout, and is compared with
plain training of that model. A refused method is listed with the reason. Memory is the peak of some
steps in a fresh process, minus the peak of plain steps.

With ``alternatives``, there are two more arms for some methods: with the loss computed after the
forward pass, for which the head recomputes its logits, and a floor: plain training with the passes
that the method needs.
"""

import builtins
import gc
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoModelForCausalLM

from benchmarks import harness
from benchmarks.alternatives import alternatives_to
from benchmarks.live_fit import TINY_BASE, fine_tuning, seeded, topics_data
from benchmarks.memory import extra_memory
from benchmarks.plan import EXACT_MALLOC
from benchmarks.step import MODELS, compare
from lit_entrodrop.model.building import build_hf_config
from lit_entrodrop.model.config import LMConfig
from regularizers import Regularizer
from regularizers.discovery import own_regularizers

DROPOUT = 0.1
PLAIN = "plain"
MIB = 2**20
# The default level comes from validation, which these runs do not have.
SETTINGS: dict[str, dict[str, Any]] = {"Flooding": {"level": 0.1}}
# Optimizer states exist from the first step on, a moving average from the second.
STEPS = 3


def regularizers(
    rounds: int = 10,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    block_size: int = 256,
    batch_size: int = 2,
    models: list[str] = list(MODELS),  # noqa: B006
    memory_of: list[str] = ["49k"],  # noqa: B006
    only: list[str] | None = None,
    alternatives: bool = False,
) -> Path:
    """Time training steps with each regularizer, alternating in one process.

    Args:
        rounds: Number of timed rounds; every arm takes one step in each.
        threads: Number of CPU threads.
        device: Device, cpu or cuda.
        out: Folder for the results.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
        models: Models to train, named by vocabulary size.
        memory_of: Models whose memory is measured too, in one process per arm.
        only: Names of the regularizers; null for all.
        alternatives: Whether to time the other ways to compute the loss, and floors, too.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    shape = {"device": device, "block_size": block_size, "batch_size": batch_size}
    kinds = chosen(only)
    rows = []
    for model, dropout in product(models, (0.0, DROPOUT)):
        with TemporaryDirectory() as folder:
            lm = with_dropout(saved(MODELS[model], folder), dropout)
            names = [name for name in kinds if needs_dropout(kinds[name]) is (dropout > 0)]
            measured = measure(lm, names, rounds, alternatives, **shape)
            taken = [
                row["case"]
                for row in measured
                if "refused" not in row and row["case"] in (PLAIN, *names)
            ]
            memory = extra_mib(lm, taken if model in memory_of else [], **shape)
            rows += [
                {"model": model, "dropout": dropout, **row, **memory.get(row["case"], {})}
                for row in measured
            ]
    return harness.save("regularizers", settings, rows, out)


def chosen(only: Sequence[str] | None) -> dict[str, type[Regularizer]]:
    """Return classes of regularizers by name.

    Args:
        only: Names of the regularizers; None for all.

    Raises:
        ValueError: If a name is unknown.

    >>> list(chosen(["EntroDrop"]))
    ['EntroDrop']
    """
    kinds = own_regularizers()
    unknown = sorted({*(only or ())} - {*kinds})
    if unknown:
        raise ValueError(f"only: expected some of {', '.join(kinds)}, got {', '.join(unknown)}")
    return {name: kind for name, kind in kinds.items() if only is None or name in only}


def needs_dropout(kind: type[Regularizer]) -> bool:
    """Return whether a method needs dropout in the model."""
    return kind().requirements.dropout


def saved(lm: LMConfig, folder: str) -> LMConfig:
    """Return a model that can be loaded twice, as a reference needs: random weights are saved."""
    if lm.pretrained is not None:
        return lm
    seeded()
    AutoModelForCausalLM.from_config(build_hf_config(lm)).save_pretrained(folder)
    return replace(lm, pretrained=folder, architecture=None)


def with_dropout(lm: LMConfig, dropout: float) -> LMConfig:
    """Return a model with dropout, or the same one for 0."""
    overrides = {"attention_dropout": dropout} if dropout else {}
    return replace(lm, config_overrides={**lm.config_overrides, **overrides})


def measure(
    lm: LMConfig, names: Sequence[str], rounds: int, alternatives: bool = False, **shape: Any
) -> list[dict[str, Any]]:
    """Compare methods with plain training of one model; return a row for each.

    Args:
        lm: The model.
        names: Names of the methods; without any, there is no row for plain training either.
        rounds: Number of timed rounds.
        alternatives: Whether to add arms for other ways to compute the loss, and for floors.
        shape: Device, ``block_size`` and ``batch_size``.
    """
    with TemporaryDirectory() as folder:
        reasons = {name: refusal(lm, name, folder, **shape) for name in names}
        arms = {name: built(name) for name in (PLAIN, *names) if not reasons.get(name)}
        if alternatives:
            arms |= alternatives_to(arms)
        holdout = holdout_text(Path(folder))
        rows = compare(lm, arms, rounds, holdout=holdout, **shape) if len(arms) > 1 else []
    return rows + [{"case": name, "refused": why} for name, why in reasons.items() if why]


def built(name: str) -> list[Regularizer]:
    """Build the regularizers of an arm."""
    return [] if name == PLAIN else [own_regularizers()[name](**SETTINGS.get(name, {}))]


def refusal(lm: LMConfig, name: str, folder: str, **shape: Any) -> str:
    """Try some steps with a method; return the reason if it is refused, else an empty string."""
    try:
        train(lm, name, folder, **shape)
    except ValueError as error:
        return str(error)
    return ""


def train(
    lm: LMConfig, name: str, folder: str, device: str, block_size: int, batch_size: int
) -> None:
    """Take some steps under a method.

    Args:
        lm: The model.
        name: Name of the method.
        folder: Folder for the corpus.
        device: Device, cpu or cuda.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
    """
    data = topics_data(
        Path(folder),
        block_size=block_size,
        batch_size=batch_size,
        max_train_tokens=STEPS * block_size * batch_size,
        holdout=holdout_text(Path(folder)),
    )
    live = fine_tuning(lm, built(name), data, steps=STEPS + 1, device=device)
    live.advance(STEPS)
    live.close()


def holdout_text(folder: Path) -> str:
    """Write the docstrings of Python's built-in names, a text similar to the help topics.

    Args:
        folder: Folder for the file.

    Returns:
        Path to the file.
    """
    path = folder / "holdout.jsonl"
    texts = [each.__doc__ for each in vars(builtins).values() if each.__doc__]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in dict.fromkeys(texts)))
    return str(path)


def extra_mib(lm: LMConfig, names: Sequence[str], **shape: Any) -> dict[str, dict[str, float]]:
    """Return the extra memory of each method over plain training, as a column of its row.

    Args:
        lm: The model.
        names: Names of the methods, including plain training.
        shape: Device, ``block_size`` and ``batch_size``.
    """
    os.environ |= EXACT_MALLOC
    with TemporaryDirectory() as folder:
        measured = partial(extra_memory, train, lm, setup=warm_up, device=shape["device"])
        peaks = {name: measured(name, folder, *shape.values()) for name in names}
    return {name: {"extra_mib": (peak - peaks[PLAIN]) / MIB} for name, peak in peaks.items()}


def warm_up(lm: LMConfig, *others: Any) -> tuple[Any, ...]:
    """Load libraries by a tiny training, so that they do not count."""
    train(replace(TINY_BASE, config_overrides=lm.config_overrides), *others)
    gc.collect()
    return lm, *others


if __name__ == "__main__":
    harness.command_line(regularizers)
