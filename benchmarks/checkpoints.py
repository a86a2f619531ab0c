"""Cost of verifying a checkpoint, beside those of writing and of loading it.

The file has the records of a fine-tuned model in fp32: weights and two moments of Adam.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import harness
from lit_entrodrop.runs.checkpoints.integrity import verify_checkpoint
from lit_entrodrop.runs.checkpoints.io import StreamingCheckpointIO

RECORD = 2**24  # fp32 values
GB = 10**9


def checkpoints(
    gigabytes: float = 2.0, rounds: int = 3, folder: str | None = None, out: str = harness.RESULTS
) -> Path:
    """Measure the seconds to write, to load and to verify a checkpoint.

    Args:
        gigabytes: Size of the checkpoint.
        rounds: Timed rounds; each runs every case once.
        folder: Folder for the checkpoint; null for that of temporary files.
        out: Folder of the results.
    """
    settings = {**locals()}
    count = max(1, round(gigabytes * GB / RECORD / 4))
    state = {f"weight.{index}": torch.randn(RECORD) for index in range(count)}
    checkpoint: dict[str, Any] = {"lm": {}, "hf_config": {}, "state_dict": state}
    with TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "step=1.ckpt"

        def write() -> None:
            StreamingCheckpointIO().save_checkpoint(checkpoint, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())

        cases = {
            "write": write,
            "load": lambda: torch.load(path, weights_only=True),
            "verify": lambda: verify_checkpoint(path),
        }
        write()
        seconds = harness.interleaved(cases, rounds)
        size = path.stat().st_size / GB
    rows = []
    for name, times in seconds.items():
        time, to_load = harness.summary(times), harness.ratio(times, seconds["load"])
        rows.append(
            {
                "case": name,
                "seconds": time["median"],
                "seconds_iqr": time["iqr"],
                "gb_per_second": size / time["median"],
                "ratio_to_load": to_load["median"],
            }
        )
    return harness.save("checkpoints", settings, rows, out)


if __name__ == "__main__":
    harness.command_line(checkpoints)
