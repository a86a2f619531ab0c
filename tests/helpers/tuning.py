"""Searches on the tiny model, whose runs are forked."""

import io
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.tune.result.finals import Finals
from lit_entrodrop.commands.tune.search.budget import Limits
from lit_entrodrop.commands.tune.tuning import tune
from tests.helpers.comparing import start_forked
from tests.helpers.tiny import Tiny

SPACE: dict[str, Any] = {
    "plain": {
        "model.optimizer.init_args.lr": {"low": 0.3, "high": 3.0, "log": True, "relative": True},
        "trainer.max_epochs": {"low": 1, "high": 3},
    },
    "methods": {
        "none": [],
        "replacement": {
            "configs": ["configs/regularizers/token_replacement.yaml"],
            "strengths": {"curriculum": {"low": 0.05, "high": 0.2}},
        },
    },
    "additions": {
        "data.replay.share": {"low": 0.1, "high": 0.2, "if_set": "data.replay"},
    },
}


def tiny_config(tiny: Tiny, **settings: Any) -> dict[str, Any]:
    """Return the complete config of a search on the tiny model."""
    data = {"test": 0.3, "clean_train_blocks": 0}
    return resolved_config([*tiny.config(), {"data": data}, settings])


def console() -> tuple[Console, io.StringIO]:
    """Return a console, and what it prints."""
    printed = io.StringIO()
    return Console(file=printed, width=170), printed


def searched(tiny: Tiny, output: Path, trials: int) -> tuple[Finals, str]:
    """Run a search; return its final runs and what it has printed."""
    path = tiny.folder / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    workers, (shown, printed) = Workers(start=start_forked), console()
    config = tiny_config(tiny)
    # Two seeds of the final runs, fewer than a user may set.
    limits = Limits(None, trials, seeds=2)
    return tune(config, str(path), limits, output, workers, shown), printed.getvalue()
