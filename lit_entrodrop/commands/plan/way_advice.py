"""Table of the ways to fine-tune a model, and the recommended one as a command and a config."""

import json
import shlex
from collections.abc import Sequence

from rich.table import Table

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.plan.candidates import MARGIN, usage
from lit_entrodrop.commands.plan.config_conversion import settings_of
from lit_entrodrop.commands.plan.recommendation import (
    MEMORY_COLUMNS,
    memory_cells,
    obstacle,
)
from lit_entrodrop.commands.plan.ways import STEPS_PER_EPOCH, PlannedWay
from lit_entrodrop.model.hardware import Hardware
from lit_entrodrop.runtime.nested import flattened, merged

CORPUS = ("--data.corpus", "my_corpus.jsonl")


def ways_table(ways: Sequence[PlannedWay], hardware: Hardware) -> Table:
    """Return a table of planned ways."""
    result = Table(
        title=f"Estimated memory per GPU in GB (of {hardware.memory_gb:g}, {MARGIN:.0%} stay free)"
    )
    for name in ("way", "strategy"):
        result.add_column(name, no_wrap=True)
    for name in (*MEMORY_COLUMNS, "fits"):
        result.add_column(name, justify="right")
    result.add_column("needs")
    for each in ways:
        setup, extra = each.setup, each.way.extra
        needs = "" if extra is None else rf"pip install 'lit-entrodrop\[{extra}]'"
        cells = (each.way.name, setup.name, *memory_cells(setup), "yes" if setup.fits else "no")
        result.add_row(*cells, needs, style=None if setup.fits else "dim")
    return result


def recommended(ways: Sequence[PlannedWay]) -> PlannedWay:
    """Return the first way that fits.

    Raises:
        ValueError: If none fits.
    """
    for each in ways:
        if each.setup.fits:
            return each
    smallest = min(ways, key=lambda each: usage(each.setup))
    raise ValueError(
        f"for: expected a model that fits, but {smallest.way.name} {obstacle(smallest.setup)}: "
        "lower data.block_size, or choose a smaller model, more GPUs or ones with more memory"
    )


def advice(best: PlannedWay, corpus_tokens: float | None) -> str:
    """Return sentences about the recommended way."""
    tokens, rows = best.setup.tokens_per_step, best.workload.global_batch_size
    sentences = [
        f"Recommended: {best.way.name}, the first way that fits. All weights come before adapters, "
        "which learned a new domain worse (docs/baselines.md, measured on a tiny model).",
        f"A step has {tokens:,} tokens: {rows} blocks of {best.workload.block_size:,}.",
    ]
    if corpus_tokens is not None:
        steps = int(corpus_tokens / tokens)
        sentences.append(f"An epoch has {steps:,} steps.")
        if steps < STEPS_PER_EPOCH:
            sentences.append(f"At least {STEPS_PER_EPOCH} are better: lower data.block_size.")
    return " ".join(sentences)


def fit_command(best: PlannedWay, arguments: Sequence[str], output: str | None) -> str:
    """Return the command of ``fit`` that trains in the recommended way.

    Args:
        best: The recommended way.
        arguments: Arguments of ``fit`` by the user.
        output: Path to the config of the way; None to spell its settings as flags.
    """
    has_corpus = resolved_config(arguments)["data"].get("corpus") is not None
    added = _flags(best, arguments) if output is None else ["--config", output]
    return shlex.join(["lit-entrodrop", "fit", *arguments, *added, *([] if has_corpus else CORPUS)])


def _flags(best: PlannedWay, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that change the config of the user into that of a way."""
    file = best.way.config
    files = [] if file is None else ["--config", f"configs/{file}"]
    now = flattened(resolved_config([*arguments, *files]))
    planned = flattened(merged(best.way.settings, settings_of(best.setup, best.workload)))
    changed = {name: value for name, value in planned.items() if now.get(name) != value}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in changed.items()
    }
    return [*files, *(f"--{name}={text}" for name, text in texts.items())]
