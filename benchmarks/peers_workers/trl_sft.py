"""Train with TRL's SFTTrainer: ``python -m benchmarks.peers_workers.trl_sft FOLDER``.

Its default loss, ``nll``, uses a fused head that never holds all logits and also computes entropy
and accuracy; ``chunked_nll`` is an alias.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from benchmarks.peers_workers.hf import SameOrder, arguments, finish, pieces
from benchmarks.peers_workers.turns import read_settings


def train(folder: Path) -> None:
    """Run the SFTTrainer with our order of blocks on the shared model and blocks."""
    # Imported late and by name, because not every environment has it.
    trl: Any = import_module("trl")

    class OrderedTrainer(SameOrder, trl.SFTTrainer):  # type: ignore[misc]
        pass

    settings = read_settings(folder)
    dataset = Dataset.from_dict({"input_ids": np.load(settings["blocks"])})
    options = trl.SFTConfig(**arguments(settings, folder), max_length=settings["block_size"])
    trainer = OrderedTrainer(args=options, train_dataset=dataset, **pieces(settings))
    finish(trainer, folder, ["trl"])


if __name__ == "__main__":
    train(Path(sys.argv[1]))
