"""Training processes: start, turns and end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, interleaved
from benchmarks.peers_workers.turns import ANSWERS


class Arm(NamedTuple):
    """A trainer to compare.

    Args:
        module: Module that runs in the process.
        arguments: Arguments of the module after the folder.
        is_ours: Whether it runs in the environment of this project.
    """

    module: str
    arguments: tuple[str, ...] = ()
    is_ours: bool = False


ARMS = {
    "ours": Arm("ours", is_ours=True),
    "ours_entrodrop": Arm("ours", ("regularizers/entrodrop.yaml",), is_ours=True),
    "hf_trainer": Arm("hf"),
    "hf_liger": Arm("hf", ("liger",)),
    "trl_sft": Arm("trl_sft"),
}


class Result(NamedTuple):
    """Measurements of an arm.

    Args:
        turns: Seconds of each turn; equal indices of several arms belong to the same round.
        seconds: Seconds of each step.
        peak: Peak of the resident set, or of PyTorch's memory on a GPU, in bytes.
        losses: Mean training loss of each turn, including the untimed first one.
        versions: Versions of its packages.
    """

    turns: list[float]
    seconds: list[float]
    peak: int
    losses: list[float]
    versions: dict[str, str]


class Worker:
    """A process that trains by turns.

    Args:
        folder: Folder of the process.
        command: Command that starts it.
        threads: Number of CPU threads.
        device: Device, ``cpu``, which hides all GPUs, or ``cuda``.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], threads: int, device: str = "cpu"
    ) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.seconds: list[list[float]] = []
        self.peak = 0
        reading, writing = os.pipe()
        self.answers = os.fdopen(reading)
        variables = {
            ANSWERS: str(writing),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "LIT_ENTRODROP_TRACEBACK": "1",
        }
        if device == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[writing],
            )
        os.close(writing)

    def ready(self) -> None:
        """Wait until the process is ready for its first turn."""
        self._receive()

    def turn(self) -> None:
        """Train for one turn."""
        self._permit()
        self.seconds.append(self._receive()["seconds"])

    def finish(self, turns: list[float]) -> Result:
        """Finish the process and return its measurements without the first turn."""
        self._permit()
        if self.process.wait():
            raise self._failure()
        seconds = [second for turn in self.seconds[1:] for second in turn]
        result = json.loads((self.folder / "result.json").read_text())
        return Result(turns, seconds, self.peak, result["losses"], result["versions"])

    def close(self) -> None:
        """Kill the process if it is running."""
        self.process.kill()
        self.process.wait()
        self.answers.close()
        assert self.process.stdin is not None, "it was opened as a pipe"
        self.process.stdin.close()

    def _permit(self) -> None:
        assert self.process.stdin is not None, "it was opened as a pipe"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        self.peak = answer["peak"]
        return answer

    def _failure(self) -> RuntimeError:
        last = "\n".join(self.log.read_text().splitlines()[-20:])
        return RuntimeError(f"{self.folder.name} ended early:\n{last}")


@contextmanager
def started(
    work: Path, arms: Sequence[str], threads: int, python: Path, device: str
) -> Iterator[dict[str, Worker]]:
    """Start the processes of all arms, and wait until they are ready."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in arms:
            arm, folder = ARMS[name], work / name
            folder.mkdir()
            interpreter = sys.executable if arm.is_ours else str(python)
            command = [interpreter, "-m", f"benchmarks.peers_workers.{arm.module}", str(folder)]
            workers[name] = Worker(folder, [*command, *arm.arguments], threads, device)
            stack.callback(workers[name].close)
        for worker in workers.values():
            worker.ready()
        yield workers


def compare(
    work: Path,
    arms: Sequence[str],
    rounds: int,
    threads: int,
    python: Path,
    device: str = "cpu",
) -> dict[str, Result]:
    """Train the arms alternately.

    Args:
        work: Folder of the training.
        arms: Names of the arms.
        rounds: Number of timed turns, after an untimed one.
        threads: Number of CPU threads of each.
        python: Path to the interpreter of the peers.
        device: Device, ``cpu`` or ``cuda``.
    """
    with started(work, arms, threads, python, device) as workers:
        turns = interleaved({name: workers[name].turn for name in arms}, rounds, warmup=1)
        return {name: workers[name].finish(turns[name]) for name in arms}
