"""Train with TRL's SFTTrainer: ``python -m benchmarks.peers_workers.trl_sft FOLDER``.

Its default loss, ``nll``, comes from a fused head that never holds all logits and gives entropy and
accuracy too; ``chunked_nll`` is another name for it.
"""

import sys
from pathlib import Path

import numpy as np
from datasets import Dataset

from benchmarks.peers_workers.hf import SameOrder, arguments, finish, pieces
from benchmarks.peers_workers.turns import read_settings


def train(folder: Path) -> None:
    """Run the SFTTrainer itself, but for the order, on the shared model and blocks."""
    # Imported here, as only the peers' environment has it.
    from trl import SFTConfig, SFTTrainer

    class OrderedTrainer(SameOrder, SFTTrainer):  # type: ignore[misc]
        pass

    settings = read_settings(folder)
    dataset = Dataset.from_dict({"input_ids": np.load(settings["blocks"])})
    options = SFTConfig(**arguments(settings, folder), max_length=settings["block_size"])
    trainer = OrderedTrainer(args=options, train_dataset=dataset, **pieces(settings))
    finish(trainer, folder, ["trl"])


if __name__ == "__main__":
    train(Path(sys.argv[1]))
