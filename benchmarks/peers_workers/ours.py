"""Train with our ``fit``: ``python -m benchmarks.peers_workers.ours FOLDER [CONFIG…]``."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L

from benchmarks.peers_workers.turns import Turns, read_settings, write_result
from lit_entrodrop.cli.main import main
from lit_entrodrop.runs.metrics_file import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"


class TakeTurns(L.Callback):
    """Wait for the turn of this process.

    Args:
        steps: Optimizer steps per turn.
    """

    def __init__(self, steps: int) -> None:
        self.turns = Turns(steps)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the first turn."""
        self.turns.begin()

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the time of a step."""
        self.turns.step_done()


def config(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of this training, as a user would write it in YAML."""
    turns = {"class_path": f"{__spec__.name}.TakeTurns", "init_args": {"steps": settings["turn"]}}
    return {
        "trainer": {
            "accelerator": "cpu" if settings["device"] == "cpu" else "gpu",
            "precision": "32-true" if settings["device"] == "cpu" else "bf16-mixed",
            "devices": 1,
            "max_steps": settings["steps"],
            "max_epochs": settings["epochs"],
            "log_every_n_steps": settings["turn"],
            "gradient_clip_val": settings["max_grad_norm"],
            "enable_checkpointing": False,
            "default_root_dir": str(folder / "run"),
            "callbacks": [turns],
        },
        "model": {
            "lm": {"pretrained": settings["model"]},
            "optimizer": {
                "class_path": "lit_entrodrop.training.optim.AdamW",
                "init_args": {"lr": settings["lr"], "betas": settings["betas"]},
            },
            "lr_schedule": {"warmup": 0, "decay": "constant"},
        },
        "data": {
            "corpus": settings["corpus"],
            "block_size": settings["block_size"],
            "batch_size": settings["batch_size"],
            "validation": 0,
            "seed": 0,
            "cache_dir": settings["cache"],
        },
    }


def fit(folder: Path, regularizers: list[str]) -> None:
    """Run ``fit`` on the shared model and blocks."""
    settings, own = read_settings(folder), folder / "fit.yaml"
    own.write_text(json.dumps(config(settings, folder), indent=2))
    configs = [CONFIGS / "base.yaml", own, *(CONFIGS / name for name in regularizers)]
    main(["fit", *(word for path in configs for word in ("--config", str(path)))])
    losses = read_metrics(folder / "run")["train/loss"].dropna()
    # The last step ends the run and belongs to no turn.
    losses = losses[losses.index % settings["turn"] == 0]
    write_result(folder, losses.tolist(), ["torch", "lightning", "transformers"])


if __name__ == "__main__":
    fit(Path(sys.argv[1]), sys.argv[2:])
